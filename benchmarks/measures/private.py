"""Private memory of training on packed images: does it grow with the number of samples?

Ten thousand and ten million samples, each in a process of its own: a pack whose index names the same few digits again
and again, and a store whose shards repeat the same records. Both are read at places all over an epoch. What is counted
is memory that belongs to the process alone; files that are mapped stay the system's to drop.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks.common import Row
from benchmarks.measures.memory import MIB, in_fresh_process, private_bytes
from benchmarks.measures.scan import CLASSES, TOPK, made_records
from benchmarks.measures.train import STUDENT, make_learner
from benchmarks.stores import bench_manifest, write_shard
from logitstore.cuts import Cut
from logitstore.images import open_images
from logitstore.images.packed import INDEX, LABELS, NAME_ENDS, NAMES, read_manifest
from logitstore.pack import PackConfig, pack
from logitstore.pack.finish import write_manifest
from logitstore.store import choose_shard_size, create_store
from logitstore.train import TrainConfig
from logitstore.train.feed import open_feed
from logitstore.views import view_spec

SIZE, BATCH, STEPS = 32, 64, 2
STORED_SIZE = 48
"""Of the store's views: at another size than training's, so that no witness is looked for. Made ones are zeros."""
_MADE, _BLOCK = 1 << 16, 1 << 20


def blow_up(split: Path, num_samples: int) -> None:
    """Let the index of a packed split name its images again and again, and drop their names."""
    for name in (INDEX, LABELS):
        few = np.load(split / name)
        unfinished = split / "unfinished"
        many = np.lib.format.open_memmap(unfinished, mode="w+", dtype=few.dtype, shape=(num_samples,))
        for start in range(0, num_samples, _BLOCK):
            stop = min(num_samples, start + _BLOCK)
            many[start:stop] = few[np.arange(start, stop) % len(few)]
        many.flush()
        unfinished.replace(split / name)
    for name in (NAMES, NAME_ENDS):
        (split / name).unlink(missing_ok=True)
    write_manifest(split, {**read_manifest(split), "num_samples": num_samples})


def write_store(path: Path, data: Path) -> None:
    """One epoch of made records of a packed data set."""
    images = open_images(str(data))
    shard_size = choose_shard_size(len(images), TOPK, "q8", False, BATCH, num_classes=CLASSES)
    manifest = bench_manifest(
        num_samples=len(images),
        num_epochs=1,
        num_classes=CLASSES,
        cut=Cut(topk=TOPK),
        shard_size=shard_size,
    )
    view = replace(view_spec("tinyvit", size=STORED_SIZE), hflip=0.0)  # as for all digits
    manifest = replace(manifest, dataset=images.describe(), view=view.to_dict())
    store = create_store(path, manifest)
    order = store.order(0)
    made = made_records(min(_MADE, shard_size), 0)
    for shard in range(store.num_shards):
        start, stop = store.shard_range(shard)
        samples = order.samples(np.arange(start, stop))
        rows = np.arange(stop - start) % len(made["tail"])
        write_shard(store, 0, shard, samples, {name: array[rows] for name, array in made.items()})


def train_here(data: str, store: str, places: int) -> Row:
    """Train two steps at each of some places all over the epoch; the most that this process had for itself."""
    config = TrainConfig(
        student=STUDENT, data=data, store=store, size=SIZE, batch_size=BATCH, epochs=1, device="cpu", workers=2
    )
    feed = open_feed(config, config.effective_recipe())
    learner = make_learner(config, feed)
    most = 0
    for place in range(places):
        step = (feed.steps_per_epoch - STEPS) * place // max(1, places - 1)
        for batch in feed.batches(0, step, STEPS):
            learner.train_step(learner.place(batch))
            most = max(most, private_bytes())
    return {"private_mib": most / MIB}


def measure(folder: Path, *, sizes: tuple[int, int], places: int) -> tuple[Row, list[Row]]:
    """Private memory of training at two numbers of samples.

    Args:
        folder: for packs and stores; those of 10 million samples take 0.7 GB.
        sizes: both N.
        places: where to read, evenly spaced over an epoch.

    Returns:
        the summary fields and the rows of the table.
    """
    print(f"\nPrivate memory of training on packed digits, batch {BATCH}, at {places} places of an epoch.")
    rows = []
    for num_samples in sizes:
        data, store = folder / f"pack-{num_samples}", folder / f"store-of-{num_samples}"
        pack(PackConfig(data="digits", out=str(data)))
        blow_up(data / "train", num_samples)
        write_store(store, data)
        rows.append({"samples": num_samples, **in_fresh_process(train_here, str(data), str(store), places)})
    grown = rows[1]["private_mib"] - rows[0]["private_mib"]
    return {"rss_growth_mib": grown, "rss_samples": list(sizes)}, rows
