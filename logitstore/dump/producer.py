"""From a configuration to the records of batches. Shape suffixes: B batch, C classes, K kept, H height, W width."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import product, starmap
from pathlib import Path
from typing import Any

import numpy as np
import torch

from logitstore.cards import run_folder
from logitstore.cuts import Cut
from logitstore.dump.assembly import Part
from logitstore.dump.config import DEFAULT_FLOOR, DumpConfig
from logitstore.dump.shown import open_shown
from logitstore.errors import FormatError, InputError, MismatchError, NonFiniteError, StoreNotFoundError
from logitstore.inference import Inference
from logitstore.loader import Batch
from logitstore.progress import ProgressFactory, start
from logitstore.sampling import find_gain
from logitstore.store import Manifest, Store, create_store, encode_records, open_store
from logitstore.store.claiming import Shard
from logitstore.topk import Fetch, select_topk

_NO_VIEWS = np.empty((0, 3, 0, 0), np.uint8)


@dataclass(frozen=True, kw_only=True)
class Selection:
    """What the teacher kept of a batch, perhaps still on its way from the device."""

    shard: Shard
    """Where it belongs."""
    ends_shard: bool
    """Whether it is the last batch of its shard."""
    records: int
    """Views in it."""
    bad: tuple[str, ...]
    """Names of images that did not decode."""
    encode: Callable[[], Part]
    """Makes the arrays as they are stored, in any thread; raises NonFiniteError for a NaN or an Inf of the teacher."""


class Producer:
    """Everything that making shards needs: images, view spec, teacher and the manifest they amount to.

    Args:
        config: what to dump.
        progress: how to show progress; None is silent.

    Raises:
        InputError: something the user named cannot be used.
    """

    def __init__(self, config: DumpConfig, progress: ProgressFactory | None) -> None:
        self._config, self._progress = config, progress
        self._notes = notes = start(progress, None, "img")
        self._shown = open_shown(config)
        self._images = self._shown.images
        self._inference = Inference(config, self._images, self._shown.spec, notes.say)
        teacher = self._inference.teacher
        num_classes = teacher.num_classes
        if remark := self._shown.remark(num_classes, teacher.class_names):
            notes.say(remark)
        if config.topk > num_classes:
            notes.say(f"--topk {config.topk} is more than there are classes: all {num_classes} are kept.")
        self.path = Path(config.store or run_folder("dump", config.teacher, self._images.name))
        self._shown.require_elsewhere(self.path)
        self._batch_size = self._inference.batch_size(config.shard_size)
        self._loader = self._shown.loader(
            batch_size=self._batch_size,
            workers=self._inference.compute.workers,
            skip_bad=config.skip_bad,
            pinned=self._inference.device.type == "cuda",
        )

    @property
    def num_epochs(self) -> int:
        """E. To ask for it does not fix the manifest, which depends on whether there is a store already."""
        return self._shown.num_epochs

    @cached_property
    def manifest(self) -> Manifest:
        """What the store will say of itself."""
        config = self._config
        return self._inference.manifest(
            self._cut(),
            num_epochs=self._shown.num_epochs,
            run_seed=self._shown.run_seed,
            threads=self._threads(),
            logz=config.logz,
            shard_size=config.shard_size,
            views_from=self._shown.recorded(),
        )

    def _cut(self) -> Cut:
        """What is kept of a view; with a target, the cut of an existing store counts, else the one that is found."""
        config, stored = self._config, self._stored()
        cut = Cut(topk=min(config.topk, self._inference.teacher.num_classes), values=config.values)
        where = config.named_cuts
        if config.target_kl is None:
            usual = {} if "gain" in where else {"floor": DEFAULT_FLOOR}
        elif stored is not None:
            usual = {name: getattr(stored.manifest, name) for name in ("floor", "mass", "gain")}
            own = ", ".join(f"{name} {value:g}" for name, value in usual.items())
            self._notes.say(f"The store at {self.path} exists, so its own cut counts, not a target: {own}.")
        else:
            return self._found_cut(cut, config.target_kl)
        chosen: dict[str, Any] = {**usual, **where}
        return replace(cut, **chosen)

    def _found_cut(self, cut: Cut, target_kl: float) -> Cut:
        """The cut with the largest gain that reaches a target, on a sample of views."""
        if named := self._config.named_cuts:
            options = " and ".join(f"--{name}" for name in named)
            raise InputError(f"--target-kl finds where to cut: leave out {options}, or leave out --target-kl.")
        with self._inference.at_work(self._threads()):
            return find_gain(
                self._inference,
                cut,
                target_kl,
                run_seed=self._shown.run_seed,
                skip_bad=self._config.skip_bad or self._shown.some_skipped,
                progress=self._progress,
            )

    def _threads(self) -> int | None:
        """Threads of torch on a CPU: those of an existing store, so that its records can go on elsewhere."""
        if self._inference.device.type != "cpu":
            return None
        stored = self._stored()
        return (stored and stored.manifest.inference.get("threads")) or torch.get_num_threads()

    def _stored(self) -> Store | None:
        """The store at the path; None where ``create_store`` has yet to make one, or to say what is there instead."""
        try:
            return open_store(self.path)
        except (StoreNotFoundError, FormatError):
            return None

    def open_store(self, epochs: range) -> Store:
        """The store, made or grown where it has to be; nothing is written before everything was checked.

        Args:
            epochs: those to be made; where any of it is missing, the header and trailer of every file are looked at.

        Raises:
            MismatchError: there is a store of something else.
            DataError: some images are bad, and the configuration does not say to skip them.
        """
        stored = self._stored()
        if stored is not None:
            stored.manifest.require_same(self.manifest, where=str(self.path))
        if stored is None or not set(product(epochs, range(self.manifest.num_shards))) <= stored.committed():
            self._shown.require_complete(epochs)
            self._check_images()
            with self.at_work():
                self._inference.compile(self._batch_size)
        try:
            return create_store(self.path, self.manifest)
        except MismatchError:
            if stored is not None:
                raise
            # Another process made it meanwhile, perhaps with another number of threads, which counts from now on.
            del self.manifest
            return create_store(self.path, self.manifest)

    def _check_images(self) -> None:
        skip_bad = self._config.skip_bad or self._shown.some_skipped
        with start(self._progress, self._images.num_samples, "file", "check") as bar:
            bad = self._images.check(lambda done, _: bar.advance(done - bar.done), skip_bad=skip_bad)
            if bad:
                bar.say(f"{len(bad)} images do not decode and become empty records: {', '.join(bad[:5])}")

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Run torch on the teacher's device with the manifest's number of threads; afterwards as before."""
        try:
            with self._inference.at_work(self.manifest.inference["threads"]):
                yield
        finally:
            self._loader.close()

    def selections(self, ranges: Iterable[tuple[int, int, int]]) -> Generator[Selection, None, None]:
        """What the teacher keeps of shard after shard, batch by batch, with no pause between shards.

        Views are rendered across the ends of shards; nothing is waited for here. To be closed.

        Args:
            ranges: epoch, start and stop of each shard, asked for as far ahead as views are made.

        Raises:
            DecodeError: an image does not decode, and the configuration does not say to skip it.
        """
        with closing(self._inference.logits(self._loader, ranges)) as batches:
            yield from starmap(self._select, batches)

    def _select(self, batch: Batch, logits_BC: torch.Tensor) -> Selection:
        """Ask the device for the records of a batch."""
        manifest = self.manifest
        self._shown.check_seeds(batch, manifest.views_from)
        selected = select_topk(logits_BC, manifest.topk, manifest.floor, manifest.mass, manifest.gain, check=False)
        shard = batch.start // manifest.shard_size
        batch = replace(batch, views_BCHW=_NO_VIEWS)  # whose memory can be used again
        return Selection(
            shard=(batch.epoch, shard),
            ends_shard=batch.stop == manifest.shard_range(shard)[1],
            records=len(batch),
            bad=batch.bad,
            encode=partial(self._encode, batch, Fetch(selected)),
        )

    def _encode(self, batch: Batch, fetch: Fetch) -> Part:
        """The arrays of a shard for one batch."""
        manifest = self.manifest
        try:
            selected = fetch.numpy()
        except NonFiniteError as error:
            where = f"epoch {batch.epoch}, positions {batch.start} to {batch.stop}"
            raise NonFiniteError(f"{error} It was at {where}; nothing of that shard was kept.") from error
        logz_B = selected.pop("logz_B")
        selected["kept_B"] *= batch.weight_B > 0  # of an image that did not decode nothing is kept
        index, logp, tail = encode_records(
            **selected, topk=manifest.topk, values=manifest.values, num_classes=manifest.num_classes
        )
        part = {"seed": batch.seed_B, "index": index, "logp": logp, "tail": tail, "witness": batch.witness_J}
        if manifest.logz:
            part["logz"] = np.where(batch.weight_B > 0, logz_B, np.float32(np.nan))
        return part
