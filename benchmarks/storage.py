"""How many bytes does a record take, and how far is it from the dense teacher?

Real logits go through the public writer into real stores, for a grid of K, floor and values; every byte on disk is
counted, and what ``open_store().read`` gives back is compared with the dense distribution in float64. The ceiling
(TinyViT's uncompressed 4+4K bytes at the same K) stands beside each row.

Packed stores follow, at the qualities that TinyViT's records have: what they take there, and here.

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

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that it also runs as a file

from benchmarks.common import SHARED_DATA, Row, arguments, finish, print_table
from benchmarks.measures import targets
from benchmarks.stores import read_views, store_bytes, write_views
from logitstore.cuts import Cut, Dense, largest_floor
from logitstore.store import open_store
from logitstore.store.values import FORMS, Values

VIEWS = 8
REAL_LOGITS = SHARED_DATA / "imagenet_logits_mobilenet_v2.npz"
TOPK = (5, 10, 20, 50, 100)
FLOORS = (0.0, 1e-4, 1e-3)
KL_TARGET, BYTES_TARGET = 0.032, 50.0
COLUMNS = (
    "codec",
    "topk",
    "floor",
    "values",
    "epochs",
    "mean_kept",
    "bytes_per_record",
    "metadata_bytes",
    "kl",
    "4+4K",
)


@dataclass(frozen=True, kw_only=True)
class Setting(Cut):
    """One point of the grid."""

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


def measure(folder: Path, dense: Dense, setting: Setting) -> Row:
    """Write one store, weigh it, read it back, compare."""
    path = folder / "store"
    write_views(path, dense.logits_NC, setting, setting.epochs)
    kl, kept = read_views(open_store(path), dense)
    size, metadata = store_bytes(path)
    shutil.rmtree(path)
    return {
        "codec": "standard",
        "topk": setting.topk,
        "floor": setting.floor,
        "values": setting.values,
        "epochs": setting.epochs,
        "mean_kept": kept,
        "bytes_per_record": size / len(dense),
        "metadata_bytes": metadata / len(dense),
        "kl": kl,
        "4+4K": 4 + 4 * setting.topk,
    }


def grid(topks: list[int], floors: list[float]) -> list[Setting]:
    """Every point that is measured, in the order of the table."""
    forms: tuple[tuple[Values, int], ...] = (("q8", 1), *((form, VIEWS) for form in FORMS))
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
    dense = Dense.of(logits_NC)
    floor = largest_floor(dense, Cut(topk=topks[-1]), KL_TARGET)
    print(f"The largest floor with KL <= {KL_TARGET} at K={topks[-1]} is {'out of reach' if floor is None else floor}.")
    floor = floor or 0.0
    floors = sorted({*((1e-3,) if args.quick else FLOORS), floor})
    with tempfile.TemporaryDirectory(prefix="logitstore-storage-") as folder:
        rows = [measure(Path(folder), dense, setting) for setting in grid(topks, floors)]
    print_table(rows, COLUMNS)
    chosen = conclude(rows, topks[-1], floor)
    with tempfile.TemporaryDirectory(prefix="logitstore-storage-") as folder:
        reached = targets.measure(Path(folder), dense, VIEWS, judge=not args.quick)
    finish("storage", {"logits": source, "chosen": chosen, "rows": rows + reached}, save=args.save)


if __name__ == "__main__":
    main()
