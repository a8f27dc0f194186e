"""Bytes of packed records at the qualities that the records of TinyViT have, against theirs and what is to be reached.

At each quality the cut by gain is looked for that is just good enough, in every form of values, and the smallest
records count. Nothing is learnt outside of the store that is weighed: its first four epochs are what the others are
coded with, and they count in full. Only the cut is chosen by looking at divergences, so it is also chosen on every
second image alone and its divergence taken on the others.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from benchmarks.common import Row, print_table
from benchmarks.measures import packed
from benchmarks.stores import read_views, store_bytes, write_views
from logitstore.cuts import Cut, Dense, largest_gain
from logitstore.store import open_store
from logitstore.store.records import kept_counts
from logitstore.store.values import CODES_PER_NAT

ENCODE = {"KL of K=10": 2e5, "KL of K=48": 2e5}
DECODE = {"KL of K=10": 1e6, "KL of K=48": 2.5e5}
"""Records a second and core that are to be reached; K=48 keeps about 22 classes."""
MOST = 255
"""Classes kept at most: gains, not K, shall cut."""
COLUMNS = (
    "quality", "values", "gain", "topk", "mean_kept", "kl", "kl_unseen", "standard", "bytes_per_record",
    "bytes_per_record_90_epochs", "encode_records_per_s", "decode_records_per_s",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Target:
    """A quality, and bytes of records that have it."""

    quality: str
    """In words."""
    kl: float | None
    """Mean divergence that is good enough; None for float16 values without loss."""
    theirs: int
    """Bytes that TinyViT takes."""
    reach: float
    """To be reached, in 8 epochs and in 90."""
    dream: float
    """Better still."""


TARGETS = (
    Target(quality="KL of K=10", kl=0.14, theirs=44, reach=9, dream=7),
    Target(quality="KL of K=48", kl=0.032, theirs=196, reach=26, dream=20),
    Target(quality="KL of K=100", kl=0.0136, theirs=404, reach=52, dream=44),
    Target(quality="float16, K=10", kl=None, theirs=44, reach=22, dream=19),
)


def at(quality: str) -> Target:
    """The target of that quality."""
    return next(target for target in TARGETS if target.quality == quality)


def measure(folder: Path, dense: Dense, views: int, *, judge: bool = True) -> list[Row]:
    """Measure every target, print a table and what was reached.

    Args:
        folder: for scratch files.
        dense: the distributions, those of an image's views adjacent.
        views: of each image; they are the epochs.
        judge: whether to say what was reached, which few images cannot tell.

    Returns:
        a row for each target and form of values; ``best`` marks the smallest of each target.
    """
    rows: list[Row] = []
    print(f"\nPacked stores of the {views} epochs, and what {packed.LONG} epochs would take:")
    for target in TARGETS:
        tried = [_row(folder, dense, views, target, cut, unseen) for cut, unseen in _cuts(target, dense, views)]
        if not tried:
            print(f"{target.quality}: out of reach with {dense.num_classes} classes.")
            continue
        best = min(tried, key=lambda row: row["bytes_per_record"])
        rows += [{**row, "best": row is best} for row in tried]
    print_table(rows, COLUMNS)
    print(
        f"Nothing is learnt but from a store's own first {packed.BASE} epochs, which count in full. kl_unseen: the "
        "gain chosen on every second image, the divergence measured on the others."
    )
    if not judge:
        print("So few images say nothing about the targets: metadata alone takes more than the records.")
        return rows
    chosen = {row["quality"]: row for row in rows if row["best"]}
    for quality, row in chosen.items():
        print(_verdict(at(quality), row, views))
    for field, least in (("encode_records_per_s", ENCODE), ("decode_records_per_s", DECODE)):
        for quality, wanted in least.items():
            if quality in chosen:
                met = "met" if chosen[quality][field] >= wanted else "missed"
                print(f"{quality}: {field} {chosen[quality][field]:,.0f}; to reach {wanted:,.0f}: {met}.")
    return rows


def _cuts(target: Target, dense: Dense, views: int) -> Iterator[tuple[Cut, float | None]]:
    """Cuts that are good enough, and the divergence, on every second image, of those that the others would choose."""
    if target.kl is None:
        yield Cut(topk=min(10, dense.num_classes), values="f16"), None
        return
    seen_N = np.arange(len(dense)) // views % 2 == 0
    for values in CODES_PER_NAT:
        whole = Cut(topk=min(MOST, dense.num_classes), values=values)
        found = largest_gain(dense, whole, target.kl)
        elsewhere = largest_gain(dense[seen_N], whole, target.kl)
        if found is not None and elsewhere is not None:
            unseen = dense[~seen_N].kl_of(replace(whole, gain=elsewhere))
            cut = replace(whole, gain=found)
            needed = kept_counts(cut.records(dense.logits_NC)["index"]).max()  # more ranks would all be padding
            yield replace(cut, topk=int(needed)), float(unseen.mean())


def _row(folder: Path, dense: Dense, views: int, target: Target, cut: Cut, unseen: float | None) -> Row:
    standard, small = folder / "standard", folder / "packed"
    write_views(standard, dense.logits_NC, cut, views)
    before, _ = store_bytes(standard)
    weight = packed.weigh(standard, small)
    kl, kept = read_views(open_store(small), dense)
    for path in (standard, small):
        shutil.rmtree(path)
    return {
        "quality": target.quality,
        "codec": "packed",
        "topk": cut.topk,
        "floor": cut.floor,
        "gain": cut.gain,
        "values": cut.values,
        "epochs": views,
        "mean_kept": kept,
        "kl": kl,
        "kl_unseen": unseen,
        "standard": before / len(dense),
        **weight,
        **packed.speed(dense, cut, views),
    }


def _verdict(target: Target, row: Row, views: int) -> str:
    def against(count: float) -> str:
        return f"{count:.1f} ({'dream' if count <= target.dream else 'met' if count <= target.reach else 'missed'})"

    return (
        f"{target.quality}: {target.theirs} bytes there; {against(row['bytes_per_record'])} here in {views} epochs, "
        f"{against(row['bytes_per_record_90_epochs'])} in {packed.LONG}; to reach {target.reach:g}, dream "
        f"{target.dream:g}; {row['metadata_bytes']:.2f} are metadata and commits."
    )
