"""Logits back from a dense store: one that keeps every class of every view, and the log-sum-exp of its logits.

Shape suffixes: B records, K ranks, C classes.
"""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from logitstore.errors import InputError
from logitstore.store.manifest import NO_MASS_CUT, Manifest

F32 = NDArray[np.float32]


def is_dense(manifest: Manifest) -> bool:
    """Whether a store keeps all classes, however improbable, as float16; ``logz`` is another matter."""
    uncut = manifest.floor == 0 and manifest.mass == NO_MASS_CUT and manifest.gain == 0
    return uncut and manifest.topk == manifest.num_classes and manifest.values == "f16"


def require_logits(manifest: Manifest, path: Path) -> None:
    """Refuse a store that logits do not come back from.

    Raises:
        InputError: with what the store keeps, and the command that makes one that has logits.
    """
    if is_dense(manifest) and manifest.logz:
        return
    if is_dense(manifest):
        kept = f"all {manifest.num_classes} log-probabilities"
    else:
        above = f" above {manifest.floor:g}" if manifest.floor else ""
        above += f" up to a mass of {manifest.mass:g}" if manifest.mass < NO_MASS_CUT else ""
        above += f" that gain {manifest.gain:g} nat each" if manifest.gain else ""
        kept = f"the top {manifest.topk} of {manifest.num_classes} classes{above} as {manifest.values}"
    logz = "with" if manifest.logz else "without"
    command = ["logitstore", "dump", "--teacher", str(manifest.teacher.get("name", "TEACHER"))]
    command += ["--topk", str(manifest.num_classes), "--floor", "0", "--values", "f16", "--logz"]
    command += ["--store", f"{path}-dense", "--epochs", str(manifest.num_epochs), "--seed", str(manifest.run_seed)]
    if "size" in manifest.view:
        command += ["--size", str(manifest.view["size"])]
    # Paths are not in a manifest, and a view spec has no name in it.
    raise InputError(
        f"The store at {path} keeps {kept} {logz} their log-sum-exp, so the teacher's logits do not come back from it: "
        f"make a dense store with the --data, --subset, --view and --checkpoint of this one and {shlex.join(command)}"
    )


def decode_logits(index_BK: NDArray[Any], logp_BK: NDArray[Any], logz_B: F32, num_classes: int) -> F32:
    """The teacher's logits in the order of classes, from the stored arrays of a dense store.

    Log-probabilities are added to ``logz`` as they are stored. Masses would not do: below -103 they are 0.

    Returns:
        float32 [B, C], exact to the rounding of a log-probability to float16: 2^-11 of it. NaN throughout for a
        skipped sample, of which nothing was kept.
    """
    logits_BC = np.full((len(index_BK), num_classes), np.nan, np.float32)
    there_B = index_BK[:, 0] < num_classes  # of a record, all classes are kept or none
    values_BK = logp_BK[there_B].astype(np.float32) + logz_B[there_B, None]
    # A boolean index copies, so the rows are put back afterwards.
    rows_BC = np.empty_like(values_BK)
    np.put_along_axis(rows_BC, index_BK[there_B].astype(np.int64), values_BK, axis=1)
    logits_BC[there_B] = rows_BC
    return logits_BC
