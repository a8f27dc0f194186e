"""How many bytes does a record take, and how far is it from the dense teacher?

Real logits go through the public writer into real stores, for a grid of K, floor and values; every byte on disk is
counted, and what ``open_store().read`` gives back is compared with the dense distribution in float64. The ceiling
(TinyViT's uncompressed 4+4K bytes at the same K) stands beside each row.

Each q8 setting is written twice: with the views as epochs, and with all of them as samples of one epoch. Epochs are
compressed apart, so the second has larger chunks and fewer commits, as an epoch of a large data set has too.

    python -m benchmarks.storage [--logits FILE.npz] [--save]

FILE holds ``logits`` [images x 8, C], the 8 views of an image adjacent: row r is view r % 8 of image r // 8.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that it also runs as a file

from benchmarks.common import SHARED_DATA, Row, arguments, finish, print_table
from benchmarks.stores import bench_manifest, write_shard
from logitstore.store import create_store, decode_records, encode_records, open_store
from logitstore.store.manifest import Values
from logitstore.store.records import kept_counts
from logitstore.teacher import select_topk

VIEWS = 8
REAL_LOGITS = SHARED_DATA / "imagenet_logits_mobilenet_v2.npz"
TOPK = (5, 10, 20, 50, 100)
FLOORS = (0.0, 1e-4, 1e-3)
KL_TARGET, BYTES_TARGET = 0.032, 50.0
COLUMNS = (
    "codec", "topk", "floor", "values", "epochs", "mean_kept", "bytes_per_record", "metadata_bytes", "kl", "4+4K"
)


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One point of the grid."""

    topk: int
    """K, at most the number of classes."""
    floor: float
    """Smallest probability that is kept."""
    values: Values
    """``q8`` or ``f16``."""
    epochs: int = VIEWS
    """``VIEWS``: view v of an image is its record in epoch v. 1: each view is a sample of its own."""


def load_logits(path: Path | None) -> tuple[NDArray[np.float32], str]:
    """float32 [images x 8, C] and where they came from: FILE, else the real ones beside the checkout, else digits."""
    if path is None and REAL_LOGITS.exists():
        path = REAL_LOGITS
    if path is None:
        return digits_logits(), "logistic regression on scikit-learn's digits, 8 shifted views each"
    with np.load(path) as archive:
        if "logits" not in archive or archive["logits"].ndim != 2 or len(archive["logits"]) % VIEWS:
            raise SystemExit(f"{path} must hold `logits` [images x {VIEWS}, classes], the views of an image adjacent.")
        return np.asarray(archive["logits"], np.float32), path.name


def digits_logits() -> NDArray[np.float32]:
    """Logits of a logistic regression on held-out digits, each shown under the 8 shifts by at most one pixel."""
    from sklearn.datasets import load_digits
    from sklearn.linear_model import LogisticRegression

    digits = load_digits()
    shifts = [(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1) if (dy, dx) != (1, 1)]
    shifted = np.stack([np.roll(digits.images / 16, shift, axis=(1, 2)) for shift in shifts], axis=1)
    flat = shifted.reshape(len(shifted), VIEWS, 64)
    model = LogisticRegression(max_iter=300).fit(flat[::2].reshape(-1, 64), np.repeat(digits.target[::2], VIEWS))
    return np.asarray(model.decision_function(flat[1::2].reshape(-1, 64)), np.float32)


def log_probs(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    """float64 log-softmax of each row."""
    shifted: NDArray[np.float64] = logits - logits.max(axis=1, keepdims=True).astype(np.float64)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))


def kl_to_dense(
    logp_NC: NDArray[np.float64],
    index_NK: NDArray[Any],
    prob_NK: NDArray[Any],
    tail_N: NDArray[Any],
    kept_N: NDArray[Any],
) -> float:
    """Mean KL(dense || decoded) in nat, the tail spread evenly over the classes that were not kept.

    Args:
        logp_NC: the dense log-probabilities.
        index_NK: kept classes, whatever beyond ``kept_N``.
        prob_NK: their probabilities.
        tail_N: probability outside the kept classes.
        kept_N: number of kept classes.
    """
    classes = logp_NC.shape[1]
    total_N = prob_NK.sum(axis=1, dtype=np.float64) + tail_N
    rest_N = np.maximum(classes - kept_N, 1)
    decoded_NC = np.repeat((tail_N / rest_N / total_N)[:, None], classes, axis=1)
    row, slot = np.nonzero(np.arange(index_NK.shape[1]) < kept_N[:, None])
    decoded_NC[row, index_NK[row, slot]] = prob_NK[row, slot] / total_N[row]
    return float((np.exp(logp_NC) * (logp_NC - np.log(decoded_NC))).sum(axis=1).mean())


def encoded(logits_NC: NDArray[np.float32], setting: Setting) -> dict[str, NDArray[Any]]:
    """Selection and quantisation as ``dump`` does them: ``index``, ``logp``, ``tail`` in the dtypes of the store."""
    top = select_topk(torch.from_numpy(logits_NC), setting.topk, setting.floor)
    index, logp, tail = encode_records(
        index_BK=top.index_BK.numpy(),
        logp_BK=top.logp_BK.numpy(),
        tail_B=top.tail_B.numpy(),
        kept_B=top.kept_B.numpy(),
        topk=setting.topk,
        values=setting.values,
        num_classes=logits_NC.shape[1],
    )
    return {"index": index, "logp": logp, "tail": tail}


def kl_in_memory(logits_NC: NDArray[np.float32], logp_NC: NDArray[np.float64], setting: Setting) -> float:
    """The divergence that a store of this setting will have, without writing one."""
    stored = encoded(logits_NC, setting)
    index, prob, tail = decode_records(stored["index"], stored["logp"], stored["tail"])
    return kl_to_dense(logp_NC, index, prob, tail, kept_counts(index))


def largest_floor(logits_NC: NDArray[np.float32], logp_NC: NDArray[np.float64], topk: int) -> float:
    """The largest floor of two significant digits whose KL stays within the target; KL grows with the floor."""
    floors = [digits * 10.0**power / 10 for power in range(-5, 0) for digits in range(10, 100)]
    low, high = 0, len(floors)
    while high - low > 1:
        middle = (low + high) // 2
        setting = Setting(topk=topk, floor=floors[middle], values="q8")
        low, high = (middle, high) if kl_in_memory(logits_NC, logp_NC, setting) <= KL_TARGET else (low, middle)
    return float(f"{floors[low]:.1e}")


def write_store(path: Path, logits_NC: NDArray[np.float32], setting: Setting) -> None:
    """A whole store of these logits, one shard an epoch as far as shards go."""
    logits_NEC = logits_NC.reshape(-1, setting.epochs, logits_NC.shape[1])
    num_samples, _, num_classes = logits_NEC.shape
    manifest = bench_manifest(
        num_samples=num_samples,
        num_epochs=setting.epochs,
        num_classes=num_classes,
        topk=setting.topk,
        floor=setting.floor,
        values=setting.values,
        shard_size=min(65536, max(64, 1 << (num_samples - 1).bit_length())),
    )
    store = create_store(path, manifest)
    for epoch in range(setting.epochs):
        order = store.order(epoch)
        for shard in range(store.num_shards):
            samples = order.samples(np.arange(*store.shard_range(shard)))
            write_shard(store, epoch, shard, samples, encoded(logits_NEC[samples, epoch], setting))


def measure(folder: Path, logits_NC: NDArray[np.float32], logp_NC: NDArray[np.float64], setting: Setting) -> Row:
    """Write one store, weigh it, read it back, compare."""
    path = folder / "store"
    write_store(path, logits_NC, setting)
    store = open_store(path)
    logp_NEC = logp_NC.reshape(-1, setting.epochs, logp_NC.shape[1])
    kl, kept = [], []
    for epoch in range(setting.epochs):
        records = store.read(epoch, 0, store.num_samples)
        dense_BC = logp_NEC[records.sample, epoch]
        kl.append(kl_to_dense(dense_BC, records.index, records.prob, records.tail, records.kept))
        kept.append(records.kept.mean())
    size = {file: file.stat().st_size for file in path.rglob("*") if file.is_file()}
    metadata = sum(count for file, count in size.items() if file.suffix == ".json")
    shutil.rmtree(path)
    return {
        "codec": "standard",
        "topk": setting.topk,
        "floor": setting.floor,
        "values": setting.values,
        "epochs": setting.epochs,
        "mean_kept": float(np.mean(kept)),
        "bytes_per_record": sum(size.values()) / len(logits_NC),
        "metadata_bytes": metadata / len(logits_NC),
        "kl": float(np.mean(kl)),
        "4+4K": 4 + 4 * setting.topk,
    }


def grid(topks: list[int], floors: list[float]) -> list[Setting]:
    """Every point that is measured, in the order of the table."""
    forms: tuple[tuple[Values, int], ...] = (("q8", 1), ("q8", VIEWS), ("f16", VIEWS))
    return [Setting(topk=k, floor=f, values=v, epochs=e) for v, e in forms for k in topks for f in floors]


def conclude(rows: list[Row], topk: int, floor: float) -> list[Row]:
    """Hold the rows at the chosen floor against the target; those rows."""
    chosen = [row for row in rows if (row["topk"], row["floor"], row["values"]) == (topk, floor, "q8")]
    print(f"\nTarget on ImageNet logits: <= {BYTES_TARGET:g} bytes, everything included, at KL <= {KL_TARGET}, K=100.")
    for row in chosen:
        print(
            f"K={topk}, floor {floor:g}, q8, as {row['epochs']} epoch{'s' * (row['epochs'] > 1)}: "
            f"{row['bytes_per_record']:.1f} bytes, {row['metadata_bytes']:.1f} of them metadata and commits; "
            f"KL {row['kl']:.4f}; 1/{row['4+4K'] / row['bytes_per_record']:.1f} of 4+4K."
        )
    return chosen


def main() -> None:
    """Parse, measure the grid, print the table and the JSON line."""
    parser = arguments(__doc__.splitlines()[0])
    parser.add_argument("--logits", type=Path, help="FILE.npz with `logits`; else real ones or digits")
    args = parser.parse_args()
    logits_NC, source = load_logits(args.logits)
    if args.quick:
        logits_NC = logits_NC[: VIEWS * 128]
    images, classes = len(logits_NC) // VIEWS, logits_NC.shape[1]
    topks = sorted({min(topk, classes) for topk in ((10, 100) if args.quick else TOPK)})
    print(f"Logits: {source}; {images} images, {VIEWS} views each as {VIEWS} epochs, {classes} classes.")
    print(f"The ceiling: TinyViT keeps 4+4K bytes, {4 + 4 * topks[-1]} at K={topks[-1]}, uncompressed and unchecked.")
    logp_NC = log_probs(logits_NC)
    floor = largest_floor(logits_NC, logp_NC, topks[-1])
    print(f"The largest floor with KL <= {KL_TARGET} at K={topks[-1]} is {floor:g}.")
    floors = sorted({*((1e-3,) if args.quick else FLOORS), floor})
    with tempfile.TemporaryDirectory(prefix="logitstore-storage-") as folder:
        rows = [measure(Path(folder), logits_NC, logp_NC, setting) for setting in grid(topks, floors)]
    print_table(rows, COLUMNS)
    chosen = conclude(rows, topks[-1], floor)
    finish("storage", {"logits": source, "chosen": chosen, "rows": rows}, save=args.save)


if __name__ == "__main__":
    main()
