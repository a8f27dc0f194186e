"""From a configuration to the bytes of one shard. Shape suffixes: B batch, S positions of a shard, K kept, H, W."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from logitstore import __version__
from logitstore.cards import run_folder
from logitstore.device import default_workers, dtype_name, resolve_device, resolve_dtype
from logitstore.dump.config import DumpConfig
from logitstore.errors import FormatError, InputError, NonFiniteError, StoreNotFoundError
from logitstore.images import match_classes, open_images
from logitstore.loader import Batch, ViewLoader
from logitstore.progress import Progress, ProgressFactory, start
from logitstore.signals import StopRequest
from logitstore.store import (
    Manifest,
    ShardBlock,
    Store,
    choose_chunk_size,
    choose_shard_size,
    create_store,
    encode_records,
    open_store,
)
from logitstore.teacher import load_teacher
from logitstore.topk import select_topk
from logitstore.views import ViewSpec, check_transform, view_spec

_DEFAULT_BATCH = {"cpu": 64, "cuda": 256}
_CHECKED_IMAGES = 8  # on which a user's own transform is tried


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
        self._images = open_images(config.data, subset=config.subset)
        self._spec = self._make_spec()
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
        self._loader = ViewLoader(
            self._images,
            self._spec,
            run_seed=config.seed,
            batch_size=self.manifest.inference["batch_size"],
            workers=config.workers or default_workers(self._device),
            skip_bad=config.skip_bad,
        )

    def _make_spec(self) -> ViewSpec:
        spec = view_spec(self._config.view, size=self._config.size or self._images.default_size)
        if self._config.size and spec.size != self._config.size:
            raise InputError(
                f"--size {self._config.size} contradicts the size {spec.size} of {self._config.view}; leave one out."
            )
        if not self._images.flippable:
            spec = replace(spec, hflip=0.0)
        if spec.transform is not None:
            first = range(min(_CHECKED_IMAGES, self._images.num_samples))
            check_transform(spec, [self._images.pixels(sample) for sample in first])
        return spec

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
            num_epochs=config.num_epochs,
            num_classes=num_classes,
            topk=topk,
            floor=config.floor,
            values=config.values,
            logz=config.logz,
            run_seed=config.seed,
            shard_size=shard,
            chunk_size=choose_chunk_size(shard, topk, num_classes=num_classes),
            inference={
                "batch_size": batch,
                "dtype": dtype_name(self._dtype),
                "device_type": self._device.type,
                "threads": self._threads(),
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
        shards = range(self.manifest.num_shards)
        if stored is None or not all(stored.is_committed(epoch, shard) for epoch in epochs for shard in shards):
            self._check_images()
        return create_store(self.path, self.manifest)

    def _check_images(self) -> None:
        with start(self._progress, self._images.num_samples, "file", "check") as bar:
            bad = self._images.check(lambda done, _: bar.advance(done - bar.done), skip_bad=self._config.skip_bad)
            if bad:
                bar.say(f"{len(bad)} images do not decode and become empty records: {', '.join(bad[:5])}")

    @contextmanager
    def threads(self) -> Iterator[None]:
        """Run torch with the manifest's number of threads; afterwards with as many as before."""
        before, wanted = torch.get_num_threads(), self.manifest.inference["threads"]
        torch.set_num_threads(wanted or before)
        try:
            yield
        finally:
            torch.set_num_threads(before)

    def make_shard(self, epoch: int, shard: int, bar: Progress, stop: StopRequest) -> ShardBlock | None:
        """One shard's arrays as they are stored; None where a stop was requested before it was done.

        Args:
            epoch: number of the epoch.
            shard: number of the shard in it.
            bar: advanced by the views made.
            stop: looked at after every batch.

        Raises:
            DecodeError: an image does not decode, and the configuration does not say to skip it.
            NonFiniteError: the teacher gave a NaN or an Inf.
        """
        parts: list[dict[str, NDArray[Any]]] = []
        with closing(self._loader.batches(epoch, *self.manifest.shard_range(shard))) as batches:
            for batch in batches:
                if stop.signum is not None:
                    return None
                parts.append(self._make_part(batch))
                bar.advance(len(batch))
                for name in batch.bad:
                    bar.say(f"{name} does not decode and becomes an empty record.")
        return ShardBlock(**{name: np.concatenate([part[name] for part in parts]) for name in parts[0]})

    def _make_part(self, batch: Batch) -> dict[str, NDArray[Any]]:
        """The arrays of a shard for one batch."""
        manifest = self.manifest
        try:
            logits_BC = self._teacher.logits(batch.views_BCHW)
            selected = select_topk(logits_BC, manifest.topk, manifest.floor).numpy()
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
