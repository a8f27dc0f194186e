"""``audit``: samples whose label the teacher does not believe, found in a store, with no teacher at hand.

TinyViT's Table 1 calls a sample hard where its label lies outside the teacher's first five classes, and trains better
without such samples. A store has the teacher's word on many views of each sample, so here a sample is hard where that
holds for most of its views. ``hard_samples`` counts, ``findings`` writes and draws; this module opens and ranks.

Source: TinyViT (Wu et al., 2022), section 4.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from logitstore.cards import run_folder
from logitstore.errors import IncompleteError, InputError
from logitstore.images import ImageSet, open_images
from logitstore.loader import as_dumped
from logitstore.loader.matching import check_images, numbered
from logitstore.progress import ProgressFactory, start
from logitstore.report.findings import Findings
from logitstore.report.hard_samples import OWN_SHARE, Tally, opinions, tally
from logitstore.store import Store, open_store

_CLASSES_SHOWN = 10


@dataclass(frozen=True, kw_only=True)
class AuditConfig:
    """What to look for. Every field is an option of ``logitstore audit``."""

    store: str
    """Path of the store."""
    data: str = "digits"
    """The data set it was made of, with labels."""
    out: str | None = None
    """Folder of ``audit.json`` and ``audit.png``; None is ``runs/audit/<teacher>-<data>``."""
    top: int = 5
    """A label is outside a view where it is not among so many first classes."""
    threshold: float = 0.5
    """A sample is hard where its label is outside in more than this share of its views."""
    worst: int = 30
    """How many of the hard samples to look at more closely: what the teacher says instead, and a picture."""

    def __post_init__(self) -> None:
        for name in ("top", "worst"):
            if getattr(self, name) < 1:
                raise InputError(f"--{name} must be at least 1, got {getattr(self, name)}.")
        if not 0 <= self.threshold < 1:
            raise InputError(f"--threshold must lie in [0, 1), got {self.threshold}.")


@dataclass(frozen=True, kw_only=True)
class AuditResult:
    """What was found."""

    report: str
    """The JSON file: everything, for ``train --exclude``."""
    sheet: str | None
    """The contact sheet; None where no sample is hard, or matplotlib is not installed."""
    data: str
    """The data set's name."""
    num_samples: int
    """N."""
    judged: int
    """Samples with a view that counts."""
    hard: int
    """Hard samples."""
    share: float
    """Hard samples among those that were judged."""
    epochs: int
    """Complete epochs of the store."""
    records: int
    """Records read."""
    views: int
    """Of these, views that count."""
    records_per_second: float
    """Speed of the count."""
    classes: list[dict[str, Any]]
    """The classes with the largest shares of hard samples; all are in the file."""
    worst: list[dict[str, Any]]
    """The worst samples, and what the teacher says instead."""

    def to_dict(self) -> dict[str, Any]:
        """As JSON takes it."""
        return asdict(self)


def audit(config: AuditConfig, progress: ProgressFactory | None = None) -> AuditResult:
    """Find the hard samples of a store.

    Args:
        config: what to look for.
        progress: how to show progress; None is silent.

    Raises:
        MismatchError: the store was made of another data set.
        DataError: the data set has no labels.
        InputError: the store keeps too few classes for the rule, or the teacher does not know the data set's classes.
        IncompleteError: the store has no complete epoch.
    """
    store = open_store(config.store)
    images = _opened(config, store)
    assert images.labels is not None
    epochs = _epochs(store)
    began = time.monotonic()
    with start(progress, len(epochs) * len(images), "record", "audit") as bar:
        counts = tally(store, images.labels, epochs=epochs, top=config.top, advance=bar.advance)
    seconds = time.monotonic() - began
    hard = _worst_first(counts, config.threshold)
    worst = hard[: config.worst]
    findings = Findings(
        images=images,
        names=store.class_names,
        counts=counts,
        hard=hard,
        worst=worst,
        said=opinions(store, worst, epochs=epochs),
    )
    teacher = str(store.manifest.teacher.get("name"))
    folder = Path(config.out) if config.out else run_folder("audit", teacher, images.name)
    folder.mkdir(parents=True, exist_ok=True)
    described = {
        "dataset": {
            "name": images.name, "split": images.split, "count": len(images), "fingerprint": images.fingerprint
        },
        "store": store.store_id,
        "teacher": teacher,
        "rule": {"top": config.top, "threshold": config.threshold, "own_share": OWN_SHARE},
        "epochs": epochs,
    }
    return AuditResult(
        report=str(findings.write(folder / "audit.json", described)),
        sheet=findings.draw(folder / "audit.png"),
        data=images.name,
        num_samples=len(images),
        judged=findings.judged,
        hard=len(hard),
        share=len(hard) / max(findings.judged, 1),
        epochs=len(epochs),
        records=len(epochs) * len(images),
        views=findings.views,
        records_per_second=len(epochs) * len(images) / max(seconds, 1e-9),
        classes=findings.classes[:_CLASSES_SHOWN],
        worst=findings.worst_rows,
    )


def _opened(config: AuditConfig, store: Store) -> ImageSet:
    """The store's data set, with labels that number the teacher's classes."""
    if store.topk < config.top:
        raise InputError(
            f"The store at {store.path} keeps {store.topk} classes of a view, too few to see whether a label is among "
            f"the first {config.top}: give --top {store.topk}, or dump with --topk {config.top}."
        )
    if store.num_classes <= config.top:
        raise InputError(
            f"With {store.num_classes} classes every label is among the first {config.top}: give a smaller --top."
        )
    images = as_dumped(store, open_images(config.data))
    check_images(store, images)
    images = numbered(images, store.class_names, store.num_classes)
    images.require_labels("to compare with what the teacher said")
    return images


def _epochs(store: Store) -> list[int]:
    epochs = store.complete_epochs()
    if not epochs:
        raise IncompleteError(
            f"The store at {store.path} has no complete epoch, and some samples would be judged by fewer views: run "
            f"logitstore {store.manifest.codec.command} again to make what is missing."
        )
    return epochs


def _worst_first(counts: Tally, threshold: float) -> NDArray[np.int64]:
    """Hard samples: by the share of views outside, then by how improbable the label is, then by number."""
    hard = np.flatnonzero(counts.share_N > threshold)
    order = np.lexsort((hard, counts.mean_label_prob_N[hard], -counts.share_N[hard]))
    return np.asarray(hard[order], np.int64)
