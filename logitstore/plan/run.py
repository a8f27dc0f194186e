"""``plan``: a sample, a grid, a recommendation."""

from __future__ import annotations

import torch

from logitstore.drawing import require_drawing
from logitstore.inference import Inference, open_views
from logitstore.plan.config import PlanConfig
from logitstore.plan.epochs import enough_epochs, storings
from logitstore.plan.grid import Row, Scales, cuts_to_try, smallest
from logitstore.plan.picture import draw_plan
from logitstore.plan.result import PlanResult, command
from logitstore.progress import ProgressFactory, start
from logitstore.sampling import Sample, draw_sample, with_interval
from logitstore.views import check_transform

_WIDE = 0.1
"""A 95% interval of more than this share of the divergence, to either side, is worth a note."""
_KEEPS_UP = 0.9
"""A dump at this share of the teacher's own speed is limited by the teacher."""


def plan(config: PlanConfig, progress: ProgressFactory | None = None) -> PlanResult:
    """Show a sample of views to a teacher, and find out what a store of its records would be like.

    Nothing is left behind but the picture, where one is asked for.

    Args:
        config: what to plan.
        progress: how to show progress; None is silent.

    Raises:
        InputError: something the user named cannot be used.
        NonFiniteError: the teacher gave a NaN or an Inf.
    """
    if config.out is not None:
        require_drawing(config.out)
    images, spec = open_views(config)
    check_transform(spec, map(images.pixels, range(len(images))))
    inference = Inference(config, images, spec, start(progress, None, "view").say)
    threads = torch.get_num_threads() if inference.device.type == "cpu" else None
    with inference.at_work(threads):
        inference.compile(inference.batch_size())
        sample = draw_sample(
            inference,
            sample=config.sample,
            run_seed=config.run_seed,
            views=config.views,
            skip_bad=config.skip_bad,
            progress=progress,
        )
    epochs = enough_epochs(config.epochs)
    rows = _rows(config, inference, sample, epochs, threads, progress)
    best, plain = (smallest(rows, codecs, config.target_kl, epochs) for codecs in (config.codec, ("standard",)))
    result = PlanResult(
        teacher=inference.teacher.name,
        data=images.name,
        num_samples=images.num_samples,
        num_classes=inference.teacher.num_classes,
        sample_views=sample.images * sample.views,
        sample_images=sample.images,
        views_per_second=sample.views_per_second,
        teacher_views_per_second=sample.teacher_views_per_second,
        target_kl=config.target_kl,
        training_epochs=config.epochs,
        stored_epochs=epochs,
        rows=tuple(rows),
        recommended=best,
        recommended_standard=plain,
        storings=tuple(storings(config.epochs, best.weight, sample.views_per_second)) if best is not None else (),
        command=command(config, best, epochs, images.name) if best is not None else None,
        notes=tuple(_notes(config, inference, sample, rows, best)),
        picture=config.out,
    )
    if config.out is not None:
        draw_plan(result, config.out)
    return result


def _rows(
    config: PlanConfig,
    inference: Inference,
    sample: Sample,
    epochs: int,
    threads: int | None,
    progress: ProgressFactory | None,
) -> list[Row]:
    scales = Scales(sample, config.codec)
    cuts = list(cuts_to_try(config, scales.dense))
    rows: list[Row] = []
    with start(progress, len(cuts), "cut", "records") as bar:
        for cut in cuts:
            manifest = inference.manifest(cut, num_epochs=epochs, run_seed=config.run_seed, threads=threads)
            rows += scales.measure(cut, manifest)
            bar.advance()
    return rows


def _notes(config: PlanConfig, inference: Inference, sample: Sample, rows: list[Row], best: Row | None) -> list[str]:
    """What to know about the numbers, a sentence each."""
    notes, images = [], inference.images
    if sample.skipped:
        notes.append(f"{sample.skipped} images of the sample do not decode and were left out.")
    if config.sample > images.num_samples * config.views:
        notes.append(
            f"--sample {config.sample:,} is more than {config.views} views of each of {images.num_samples:,} images: "
            "all of these were taken."
        )
    if max(config.topk) > inference.teacher.num_classes:
        notes.append(f"There are {inference.teacher.num_classes} classes, so no more are kept.")
    if sample.views_per_second < _KEEPS_UP * sample.teacher_views_per_second:
        notes.append(
            "Making views takes longer than the teacher: pack the images, or raise --workers where cores are idle."
        )
    if best is not None and best.codec == "packed":
        notes.append("convert makes a packed store of a complete standard one: until then there must be room for both.")
    if best is None:
        nearest = min(rows, key=lambda row: row.kl)
        notes.append(
            f"Nothing that was tried reaches KL {config.target_kl:g}: the nearest is {nearest.kl:.4f} with --topk "
            f"{nearest.cut.topk} --floor {nearest.cut.floor:g} --values {nearest.cut.values}. Try a larger --topk, or "
            "raise --target-kl."
        )
    elif best.kl_error is None or 1.96 * best.kl_error > _WIDE * best.kl:
        wide = f"The interval of the recommended records' KL {with_interval(best.kl, best.kl_error)} (95%) is wide"
        if best.kl_error is None:
            wide = "One image tells nothing of the interval of the recommended records' KL"
        notes.append(f"{wide}: raise --sample.")
    return notes
