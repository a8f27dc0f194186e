"""A teacher and the views it is shown: what ``dump`` does for every view of a data set, and ``plan`` for a sample.

Opening images and view spec, finding the teacher, running it on batches of views, and describing all of it in a
manifest. What becomes of the logits is the caller's business. Shape suffixes: B batch, C classes, H height, W width.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass, replace
from importlib.metadata import version
from itertools import starmap

import torch
from torch import Tensor

from logitstore import __version__
from logitstore.cuts import Cut
from logitstore.device import Compute, dtype_name
from logitstore.errors import InputError
from logitstore.images import ImageSet, match_classes, open_images
from logitstore.loader import Batch, ViewLoader, prefetched
from logitstore.store import Manifest, choose_chunk_size, choose_shard_size
from logitstore.teacher import load_teacher
from logitstore.views import ViewSpec, view_spec

DEFAULT_VIEW = "tinyvit"


@dataclass(frozen=True, kw_only=True)
class InferenceConfig:
    """Which teacher is shown which views, and how it is computed. The options that ``dump`` and ``plan`` share."""

    teacher: str
    """``swin_t``, any timm model, or ``module:function`` that returns a model."""
    checkpoint: str | None = None
    """The teacher's weights; None takes what ``finetune`` left, else timm's pretrained weights."""
    data: str = "digits"
    """The data set, as ``open_images`` takes it; its ``train`` split is shown."""
    subset: int | None = None
    """Use only this many samples, evenly spaced."""
    size: int | None = None
    """Side of the views in pixels; None is the data set's: 32 on digits, else 224."""
    view: str | None = None
    """``tinyvit``, ``crop_flip``, a YAML file of view-spec fields, or ``module:function``; None is ``tinyvit``."""
    seed: int | None = None
    """Run seed: with epoch and sample it decides order and views; None is 0."""
    skip_bad: bool = False
    """Keep the positions of images that do not decode as empty records of weight 0, instead of stopping."""
    batch_size: int | None = None
    """Views per step of the teacher, a power of two; None is 64 on a CPU and 256 on a GPU, at most a shard."""
    workers: int | None = None
    """Threads that decode and render; None is one per core, half as many on a CPU. Never changes a byte."""
    device: str = "auto"
    """``cpu``, ``cuda``, ``cuda:1``, …; ``auto`` takes a GPU if there is one."""
    dtype: str = "auto"
    """``float32``, ``bfloat16`` or ``float16``; ``auto`` is bfloat16 on a GPU."""
    compile: bool = False
    """Run the teacher through ``torch.compile``. Its rounding differs, so the store is another one."""

    def __post_init__(self) -> None:
        for name in ("size", "workers"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"--{name} must be at least 1, got {value}.")
        require_power_of_two("--batch-size", self.batch_size)

    @property
    def run_seed(self) -> int:
        """``seed``, or the default."""
        return self.seed or 0


def require_power_of_two(option: str, value: int | None) -> None:
    """Refuse a size that does not divide shards evenly; None is fine.

    Raises:
        InputError: with the option and the value.
    """
    if value is not None and (value < 2 or value & (value - 1)):
        raise InputError(f"{option} must be a power of two of at least 2, got {value}.")


def open_views(config: InferenceConfig) -> tuple[ImageSet, ViewSpec]:
    """The images that a configuration names, and what may happen to them. Digits are never flipped.

    Raises:
        InputError: something the user named cannot be used.
    """
    images = open_images(config.data, subset=config.subset)
    view = config.view or DEFAULT_VIEW
    spec = view_spec(view, size=config.size or images.default_size)
    if config.size and spec.size != config.size:
        raise InputError(f"--size {config.size} contradicts the size {spec.size} of {view}; leave one out.")
    return images, spec if images.flippable else replace(spec, hflip=0.0)


class Inference:
    """A teacher that is ready for views of a data set.

    Args:
        config: which teacher, and how it is computed.
        images: what the views are of.
        spec: what may happen to them.
        say: is told, in a line, where the weights came from.

    Raises:
        InputError: something the user named cannot be used.
    """

    def __init__(self, config: InferenceConfig, images: ImageSet, spec: ViewSpec, say: Callable[[str], object]) -> None:
        self.images, self.spec = images, spec
        self.compute = Compute.of(
            device=config.device, dtype=config.dtype, batch_size=config.batch_size, workers=config.workers
        )
        self.device = self.compute.device
        self._batch_size, self._compile = config.batch_size, config.compile
        self.teacher = load_teacher(
            config.teacher,
            checkpoint=config.checkpoint,
            images=images,
            size=spec.size,
            device=self.device,
            dtype=self.compute.dtype,
            say=say,
        )
        match_classes(self.teacher.class_names, images.class_names)  # refuses classes unknown to the teacher

    def batch_size(self, shard_size: int | None = None) -> int:
        """Views per step of the teacher: what was asked for, else the device's usual number, at most a shard."""
        return self._batch_size or min(self.compute.batch_size, shard_size or self.compute.batch_size)

    def manifest(
        self,
        cut: Cut,
        *,
        num_epochs: int,
        run_seed: int,
        threads: int | None,
        logz: bool = False,
        shard_size: int | None = None,
        views_from: str | None = None,
    ) -> Manifest:
        """What a store of this teacher's records will say of itself.

        Args:
            cut: what is kept of a view.
            num_epochs: E.
            run_seed: decides order and views.
            threads: torch's, on a CPU.
            logz: whether the log-sum-exp of the logits is kept.
            shard_size: positions in a shard; None chooses by size.
            views_from: the manifest's field of that name.
        """
        samples, classes, batch = self.images.num_samples, self.teacher.num_classes, self.batch_size(shard_size)
        shard = shard_size or choose_shard_size(samples, cut.topk, cut.values, logz, batch, num_classes=classes)
        return Manifest(
            num_samples=samples,
            num_epochs=num_epochs,
            num_classes=classes,
            topk=cut.topk,
            floor=cut.floor,
            mass=cut.mass,
            gain=cut.gain,
            values=cut.values,
            logz=logz,
            run_seed=run_seed,
            views_from=views_from,
            shard_size=shard,
            chunk_size=choose_chunk_size(shard, cut.topk, num_classes=classes),
            inference={
                "batch_size": batch,
                "dtype": dtype_name(self.compute.dtype),
                "device_type": self.device.type,
                "threads": threads,
                **({"compile": True} if self._compile else {}),
            },
            teacher={**self.teacher.describe(), "class_names": self.teacher.class_names},
            # Records number the teacher's classes, so these are the names that the manifest gives.
            dataset=self.images.relabelled(self.teacher.class_names).describe(),
            view=self.spec.to_dict(),
            versions=_versions(),
        )

    def compile(self, batch_size: int) -> None:
        """Have the teacher run through ``torch.compile``, where the configuration says so.

        Raises:
            ModelError: it cannot be compiled.
        """
        if self._compile:
            self.teacher = self.teacher.compiled(batch_size)

    @contextmanager
    def at_work(self, threads: int | None) -> Iterator[None]:
        """Run torch on the teacher's device with so many threads on a CPU; afterwards as before."""
        before = torch.get_num_threads()
        torch.set_num_threads(threads or before)
        try:
            # Page-locked memory belongs to the present device, which would be the first one in every process.
            with torch.cuda.device(self.device) if self.device.type == "cuda" else nullcontext():
                yield
        finally:
            torch.set_num_threads(before)

    def logits(
        self, loader: ViewLoader, ranges: Iterable[tuple[int, int, int]]
    ) -> Generator[tuple[Batch, Tensor], None, None]:
        """Batch after batch and what the teacher says of it, with no pause between ranges. To be closed.

        Views are rendered some batches ahead; on a GPU a batch travels while the one before is worked on, and nothing
        is waited for here.

        Args:
            loader: makes the views.
            ranges: epoch, start and stop of each, asked for as far ahead as views are made.

        Yields:
            a batch, and float32 logits [B, C] on the teacher's device.

        Raises:
            DecodeError: an image does not decode, and the loader was not told to skip it.
        """
        with closing(prefetched(loader.chain(ranges), self._place, self.device)) as placed:
            yield from starmap(self._run, placed)  # which holds no batch while the caller has it

    def _place(self, batch: Batch) -> tuple[Batch, Tensor]:
        """A batch and its views on the device. The batch keeps its own until they are there."""
        return batch, self.teacher.place(batch.views_BCHW)

    def _run(self, batch: Batch, views_BCHW: Tensor) -> tuple[Batch, Tensor]:
        return batch, self.teacher.logits(views_BCHW)


def _versions() -> dict[str, str]:
    """Of everything that pixels, logits or bytes depend on."""
    names = ("numba", "numcodecs", "numpy", "pillow", "timm", "torch", "zarr")
    return {"python": platform.python_version(), "logitstore": __version__, **{name: version(name) for name in names}}
