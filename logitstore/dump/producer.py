"""From a configuration to the records of batches. Shape suffixes: B batch, C classes, K kept, H height, W width."""

from __future__ import annotations

import platform
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import cached_property, partial
from importlib.metadata import version
from itertools import product, starmap
from pathlib import Path

import numpy as np
import torch

from logitstore import __version__
from logitstore.cards import run_folder
from logitstore.device import default_workers, dtype_name, resolve_device, resolve_dtype
from logitstore.dump.assembly import Part
from logitstore.dump.config import DumpConfig
from logitstore.dump.share import Shard
from logitstore.dump.shown import open_shown
from logitstore.errors import FormatError, MismatchError, NonFiniteError, StoreNotFoundError
from logitstore.images import match_classes
from logitstore.loader import Batch, prefetched
from logitstore.progress import ProgressFactory, start
from logitstore.store import (
    Manifest,
    Store,
    choose_chunk_size,
    choose_shard_size,
    create_store,
    encode_records,
    open_store,
)
from logitstore.teacher import load_teacher
from logitstore.topk import Fetch, select_topk

_DEFAULT_BATCH = {"cpu": 64, "cuda": 256}
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
        self._device = resolve_device(config.device)
        self._dtype = resolve_dtype(config.dtype, self._device)
        notes = start(progress, None, "img")
        self._shown = open_shown(config)
        self._images, self._spec = self._shown.images, self._shown.spec
        self._teacher = load_teacher(
            config.teacher,
            checkpoint=config.checkpoint,
            images=self._images,
            size=self._spec.size,
            device=self._device,
            dtype=self._dtype,
            say=notes.say,
        )
        match_classes(self._teacher.class_names, self._images.class_names)  # refuses classes unknown to the teacher
        if config.topk > self._teacher.num_classes:
            notes.say(f"--topk {config.topk} is more than there are classes: all {self._teacher.num_classes} are kept.")
        self.path = Path(config.store or run_folder("dump", config.teacher, self._images.name))
        self._loader = self._shown.loader(
            batch_size=self.manifest.inference["batch_size"],
            workers=config.workers or default_workers(self._device),
            skip_bad=config.skip_bad,
            pinned=self._device.type == "cuda",
        )

    @cached_property
    def manifest(self) -> Manifest:
        """What the store will say of itself."""
        config, num_classes = self._config, self._teacher.num_classes
        topk = min(config.topk, num_classes)
        usual_batch = _DEFAULT_BATCH.get(self._device.type, _DEFAULT_BATCH["cpu"])
        batch = config.batch_size or min(usual_batch, config.shard_size or usual_batch)
        shard = config.shard_size or choose_shard_size(
            self._images.num_samples, topk, config.values, config.logz, batch, num_classes=num_classes
        )
        return Manifest(
            num_samples=self._images.num_samples,
            num_epochs=self._shown.num_epochs,
            num_classes=num_classes,
            topk=topk,
            floor=config.floor,
            mass=config.mass,
            values=config.values,
            logz=config.logz,
            run_seed=self._shown.run_seed,
            views_from=self._shown.recorded(),
            shard_size=shard,
            chunk_size=choose_chunk_size(shard, topk, num_classes=num_classes),
            inference={
                "batch_size": batch,
                "dtype": dtype_name(self._dtype),
                "device_type": self._device.type,
                "threads": self._threads(),
                **({"compile": True} if config.compile else {}),
            },
            teacher={**self._teacher.describe(), "class_names": self._teacher.class_names},
            # Records number the teacher's classes, so these are the names that the manifest gives.
            dataset=self._images.relabelled(self._teacher.class_names).describe(),
            view=self._spec.to_dict(),
            versions=_versions(),
        )

    def _threads(self) -> int | None:
        """Threads of torch on a CPU: those of an existing store, so that its records can go on elsewhere."""
        if self._device.type != "cpu":
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
            if self._config.compile:
                with self.at_work():
                    self._teacher = self._teacher.compiled(self.manifest.inference["batch_size"])
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
        before, wanted = torch.get_num_threads(), self.manifest.inference["threads"]
        torch.set_num_threads(wanted or before)
        try:
            # Page-locked memory belongs to the present device, which would be the first one in every process.
            with torch.cuda.device(self._device) if self._device.type == "cuda" else nullcontext():
                yield
        finally:
            torch.set_num_threads(before)
            self._loader.close()

    def selections(self, ranges: Iterable[tuple[int, int, int]]) -> Generator[Selection, None, None]:
        """What the teacher keeps of shard after shard, batch by batch, with no pause between shards.

        Views are rendered some batches ahead, across the ends of shards; on a GPU a batch travels while the one before
        is worked on, and nothing is waited for here. To be closed.

        Args:
            ranges: epoch, start and stop of each shard, asked for as far ahead as views are made.

        Raises:
            DecodeError: an image does not decode, and the configuration does not say to skip it.
        """
        with closing(prefetched(self._loader.chain(ranges), self._place, self._device)) as placed:
            yield from starmap(self._select, placed)

    def _place(self, batch: Batch) -> tuple[Batch, torch.Tensor]:
        """A batch and its views on the device. The batch keeps its own until they are there."""
        return batch, self._teacher.place(batch.views_BCHW)

    def _select(self, batch: Batch, views_BCHW: torch.Tensor) -> Selection:
        """Ask the device for the records of a batch."""
        manifest = self.manifest
        self._shown.check_seeds(batch, manifest.views_from)
        logits_BC = self._teacher.logits(views_BCHW)
        selected = select_topk(logits_BC, manifest.topk, manifest.floor, manifest.mass, check=False)
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


def _versions() -> dict[str, str]:
    """Of everything that pixels, logits or bytes depend on."""
    names = ("numba", "numcodecs", "numpy", "pillow", "timm", "torch", "zarr")
    return {"python": platform.python_version(), "logitstore": __version__, **{name: version(name) for name in names}}
