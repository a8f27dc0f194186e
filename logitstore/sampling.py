"""A teacher's logits of a sample of views, and how fast it gave them: what is looked at before a long run.

Images are spaced evenly over the data set, each under a few views, which stand for epochs. Shape suffixes: S images,
V views of each, C classes, N all views (those of an image adjacent), B batch, H height, W width.
"""

from __future__ import annotations

import math
import time
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import starmap

import numpy as np
import torch
from numpy.typing import NDArray

from logitstore.cuts import Cut, Dense, largest_gain
from logitstore.device import Arriving
from logitstore.errors import DataError, InputError
from logitstore.inference import Inference
from logitstore.loader import Batch, ViewLoader
from logitstore.loader.prefetch import one_ahead
from logitstore.progress import ProgressFactory, start
from logitstore.topk import require_finite

SAMPLE, VIEWS = 2000, 5
"""Views altogether, and of each image, where nobody says otherwise: one more than a packed store has base epochs."""
_ROUNDS, _ROUNDS_S = 5, 2.0  # the teacher alone is timed so often, but no longer


@dataclass(frozen=True, kw_only=True, eq=False)
class Sample:
    """What a teacher says of a sample of views."""

    logits_SVC: NDArray[np.float32]
    """Finite logits; view v of an image is its view in epoch v."""
    skipped: int
    """Images that did not decode and were left out."""
    views_per_second: float
    """Rendered and shown to the teacher, side by side, as in a dump."""
    teacher_views_per_second: float
    """Of the teacher alone, on views that lie ready."""

    @property
    def images(self) -> int:
        """S."""
        return len(self.logits_SVC)

    @property
    def views(self) -> int:
        """V."""
        return int(self.logits_SVC.shape[1])

    def dense(self) -> Dense:
        """All views as rows: view v of image s is row s V + v."""
        return Dense.of(self.logits_SVC.reshape(-1, self.logits_SVC.shape[2]))

    def standard_error(self, value_N: NDArray[np.float64]) -> float | None:
        """Standard error of the mean of a value of each view, in the value's unit.

        Views of one image are alike, so images count, not views: it is the deviation of the images' means over the
        square root of their number. None for a single image.
        """
        mean_S = value_N.reshape(self.images, self.views).mean(axis=1)
        return float(mean_S.std(ddof=1)) / math.sqrt(self.images) if self.images > 1 else None


def draw_sample(
    inference: Inference,
    *,
    sample: int,
    run_seed: int,
    views: int = VIEWS,
    skip_bad: bool = False,
    progress: ProgressFactory | None = None,
) -> Sample:
    """Show a teacher a sample of views.

    The first batch is shown twice: kernels are compiled and caches filled before the clock starts.

    Args:
        inference: the teacher and the data set.
        sample: views altogether; as many images as that takes, at most all.
        run_seed: decides the views.
        views: views of each image.
        skip_bad: leave out images that do not decode.
        progress: how to show progress; None is silent.

    Raises:
        DataError: an image does not decode, or all were left out.
        NonFiniteError: the teacher gave a NaN or an Inf.
    """
    for name, value in (("--sample", sample), ("--views", views)):
        if value < 1:
            raise InputError(f"{name} must be at least 1, got {value}.")
    images = inference.images.subset(min(inference.images.num_samples, -(-sample // views)))
    images.check(skip_bad=skip_bad)
    logits_SVC = np.empty((len(images), views, inference.teacher.num_classes), np.float32)
    used_S = np.ones(len(images), np.bool_)
    loader = ViewLoader(
        images,
        inference.spec,
        run_seed=run_seed,
        batch_size=inference.batch_size(),
        workers=inference.compute.workers,
        skip_bad=skip_bad,
        pinned=inference.device.type == "cuda",
    )
    with loader, start(progress, len(images) * views, "view", "sample") as bar:
        with closing(inference.logits(loader, [(0, 0, min(len(images), loader.batch_size))])) as warm:
            for batch, _ in warm:
                ready_BCHW = inference.teacher.place(batch.views_BCHW.copy())
        teacher_rate = _rate_alone(inference, ready_BCHW)
        began = time.perf_counter()
        with closing(inference.logits(loader, ((view, 0, len(images)) for view in range(views)))) as batches:
            # One batch is asked of the device while the one before is fetched.
            for sample_B, weight_B, view, arriving in one_ahead(starmap(_set_out, batches)):
                used_S[sample_B[weight_B == 0]] = False
                logits_SVC[sample_B, view] = arriving.wait()["logits"].numpy()
                bar.advance(len(sample_B))
        seconds = time.perf_counter() - began
    if not used_S.any():
        raise DataError(f"None of the {len(images)} images of the sample decodes.")
    logits_SVC = logits_SVC if used_S.all() else logits_SVC[used_S]
    require_finite(torch.from_numpy(~np.isfinite(logits_SVC).all(axis=2).reshape(-1)))
    return Sample(
        logits_SVC=logits_SVC,
        skipped=int((~used_S).sum()),
        views_per_second=len(images) * views / seconds,
        teacher_views_per_second=teacher_rate,
    )


def find_gain(
    inference: Inference,
    cut: Cut,
    target_kl: float,
    *,
    run_seed: int,
    skip_bad: bool = False,
    progress: ProgressFactory | None = None,
) -> Cut:
    """A cut with the largest gain at which records are good enough, on a sample of views.

    Args:
        inference: the teacher and the data set.
        cut: everything but the gain.
        target_kl: mean KL(dense || decoded) in nat.
        run_seed: decides the views.
        skip_bad: leave out images that do not decode.
        progress: how to show progress, and where to say what was found; None is silent.

    Raises:
        InputError: not even records without this cut are good enough.
        DataError: an image does not decode.
        NonFiniteError: the teacher gave a NaN or an Inf.
    """
    sample = draw_sample(inference, sample=SAMPLE, run_seed=run_seed, skip_bad=skip_bad, progress=progress)
    dense = sample.dense()
    gain = largest_gain(dense, cut, target_kl)
    found = replace(cut, gain=gain or 0.0)
    kl_N = dense.kl_of(found)
    if gain is None:
        ways = ["raise --topk"] * (cut.topk < dense.logits_NC.shape[1]) + ["take finer values"] * (cut.values != "f16")
        raise InputError(
            f"--target-kl {target_kl:g} is out of reach: with --topk {cut.topk} and --values {cut.values} records "
            f"diverge by {kl_N.mean():.3g} nat; {', or '.join([*ways, 'raise --target-kl'])}."
        )
    start(progress, None, "view").say(
        f"Gain {gain:g}: KL {with_interval(kl_N.mean(), sample.standard_error(kl_N))} nat on {len(kl_N):,} views of "
        f"{sample.images:,} images."
    )
    return found


def with_interval(mean: float, standard_error: float | None) -> str:
    """A mean and half of its 95% interval, in as many decimals as three digits of the mean need, and at least four."""
    decimals = max(4, 2 - math.floor(math.log10(mean))) if mean > 0 else 4
    return f"{mean:.{decimals}f}" + ("" if standard_error is None else f" ± {1.96 * standard_error:.{decimals}f}")


def _set_out(batch: Batch, logits_BC: torch.Tensor) -> tuple[NDArray[np.int64], NDArray[np.float32], int, Arriving]:
    """Samples, weights and view of a batch, and its logits on their way."""
    return batch.sample_B, batch.weight_B, batch.epoch, Arriving({"logits": logits_BC})


def _rate_alone(inference: Inference, views_BCHW: torch.Tensor) -> float:
    """Views per second of the teacher on a batch that lies on its device: the fastest of a few rounds."""
    seconds: list[float] = []
    while len(seconds) < _ROUNDS and sum(seconds) < _ROUNDS_S:
        began = time.perf_counter()
        # Waits for the device; a value of each view is enough.
        inference.teacher.logits(views_BCHW)[:, 0].cpu()
        seconds.append(time.perf_counter() - began)
    return len(views_BCHW) / min(seconds)
