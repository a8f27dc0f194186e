"""``finetune``: from a configuration to weights and their card."""

from __future__ import annotations

import os
import time
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from logitstore.cards import Accuracy, Card, Preprocessing, load_model, run_folder, save_model
from logitstore.device import default_workers, dtype_name, require_runs, resolve_device, resolve_dtype
from logitstore.errors import DataError, InputError
from logitstore.finetune.config import FinetuneConfig, FinetuneResult
from logitstore.finetune.learner import Learner, check_loss
from logitstore.images import ImageSet, open_images
from logitstore.learning.validation import open_validation
from logitstore.loader import ViewLoader
from logitstore.models import backbone_weights, build_model, model_name, own_preprocessing, pretrained_model
from logitstore.progress import Progress, ProgressFactory, start
from logitstore.scoring import score
from logitstore.views import ViewSpec, check_transform, view_spec
from students import build_arguments
from students.recipes import Recipe

_CHECKED_IMAGES = 8  # on which a user's own transform is tried
_LEAST_CROP = 0.6  # of the area, where an image must not be flipped: characters lose their meaning in small pieces


@dataclass(frozen=True, kw_only=True)
class _Run:
    """All that is fixed before the first step."""

    config: FinetuneConfig
    images: ImageSet
    validation: ImageSet | None
    loader: ViewLoader
    recipe: Recipe
    preprocessing: Preprocessing
    device: torch.device
    dtype: torch.dtype
    workers: int
    out: Path


def finetune(config: FinetuneConfig, progress: ProgressFactory | None = None) -> FinetuneResult:
    """Train a teacher on labels and save it where ``dump`` looks for it.

    Args:
        config: what to train, and how.
        progress: how to show progress; None is silent.

    Raises:
        DataError: the data set has no labels, or cannot be read.
        ModelError: no such model, or its weights cannot be had.
        NonFiniteError: the loss is NaN or infinite; nothing is saved.
        InputError: another value that cannot be used.
    """
    images = _open_training(config, progress)
    device = resolve_device(config.device)
    dtype = resolve_dtype(config.dtype, device)
    assert images.num_classes is not None
    model, preprocessing = _initial_model(config, images.num_classes, config.size or images.default_size)
    require_runs(model, config.size or images.default_size, name=config.teacher)
    run = _prepare(config, images, preprocessing, device, dtype)
    _require_writable(run.out)
    learner = Learner(
        model,
        run.recipe,
        preprocessing=run.preprocessing,
        steps_per_epoch=run.loader.num_batches(),
        seed=config.seed,
        device=device,
        dtype=dtype,
        freeze_backbone=config.freeze_backbone,
    )
    total = run.recipe.epochs * run.loader.num_batches() * run.loader.batch_size
    began = time.monotonic()
    with start(progress, total, "img", "finetune") as bar:
        loss, accuracy, training_seconds = _train(run, learner, bar)
    card = save_model(run.out / "model.safetensors", learner.average.state_dict(), _card(run, accuracy))
    return FinetuneResult(
        checkpoint=str(run.out / "model.safetensors"),
        model=card.model,
        num_classes=card.num_classes,
        epochs=run.recipe.epochs,
        steps=learner.step,
        loss=loss,
        accuracy=card.accuracy,
        images_per_second=total / training_seconds,
        seconds=time.monotonic() - began,
        sha256=card.sha256,
    )


def _train(run: _Run, learner: Learner, bar: Progress) -> tuple[float, Accuracy | None, float]:
    """All epochs; gives the last one's mean loss, the accuracy of the average, and seconds without validation."""
    loss, accuracy, seconds = 0.0, None, 0.0
    for epoch in range(run.recipe.epochs):
        began = time.monotonic()
        losses = []
        with closing(run.loader.batches(epoch)) as batches:
            for images, batch_loss in learner.epoch(batches):
                losses.append(batch_loss)
                bar.advance(images, epoch=f"{epoch + 1}/{run.recipe.epochs}")
        loss = check_loss(float(torch.stack(losses).mean()), learner.step)
        seconds += time.monotonic() - began
        if run.validation is not None:
            accuracy = score(
                learner.average,
                run.validation,
                size=run.loader.size,
                preprocessing=run.preprocessing,
                device=run.device,
                dtype=run.dtype,
                batch_size=run.loader.batch_size,
                workers=run.workers,
            )
        bar.say(f"epoch {epoch + 1}/{run.recipe.epochs}: loss {loss:.4f}" + (f", {accuracy}" if accuracy else ""))
    return loss, accuracy, seconds


def _open_training(config: FinetuneConfig, progress: ProgressFactory | None) -> ImageSet:
    images = open_images(config.data, subset=config.subset)
    images.require_labels("to train on")
    if images.num_samples < 2 or (images.num_classes or 0) < 2:
        raise DataError(
            f"{images.name} has {images.num_samples} images of {images.num_classes} classes; two of each are the least."
        )
    with start(progress, len(images), "img", "check files") as bar:
        images.check(lambda done, _total: bar.advance(done - bar.done))
    return images


def _initial_model(config: FinetuneConfig, num_classes: int, size: int) -> tuple[nn.Module, Preprocessing]:
    """The model before the first step, and how its images are normalised: as those that its weights were made on."""
    common: dict[str, Any] = {
        "num_classes": num_classes,
        "size": size,
        "drop_path": 0.0 if config.freeze_backbone else config.drop_path,
        "seed": config.seed,
    }
    model = (pretrained_model if config.uses_tag else build_model)(config.teacher, **common)
    preprocessing = own_preprocessing(model, size)
    if config.checkpoint is not None:
        state, card = load_model(config.checkpoint)
        model.load_state_dict(backbone_weights(config.teacher, state, model), strict=False)
        if card is not None:
            preprocessing = replace(preprocessing, mean=card.preprocessing.mean, std=card.preprocessing.std)
    return model, preprocessing


def _require_writable(folder: Path) -> None:
    """A run of hours must not end at a path that cannot be written to; nothing is made yet."""
    there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        raise InputError(f"{folder} cannot be written to ({there} forbids it): choose another folder with --out.")


def _prepare(
    config: FinetuneConfig, images: ImageSet, preprocessing: Preprocessing, device: torch.device, dtype: torch.dtype
) -> _Run:
    size = config.size or images.default_size
    batch_size = min(config.batch_size or (128 if device.type == "cuda" else 64), images.num_samples)
    workers = config.workers or default_workers(device)
    loader = ViewLoader(
        images,
        _make_spec(config, images, size),
        run_seed=config.seed,
        batch_size=batch_size - batch_size % 2,
        workers=workers,
        drop_last=True,
    )
    return _Run(
        config=config,
        images=images,
        validation=open_validation(
            config.data,
            config.val_data,
            class_names=images.class_names,
            num_classes=images.num_classes or 0,
            notes=[],
        ),
        loader=loader,
        recipe=_recipe(config, loader),
        preprocessing=preprocessing,
        device=device,
        dtype=dtype,
        workers=workers,
        out=Path(config.out) if config.out else run_folder("finetune", config.teacher, images.name),
    )


def _make_spec(config: FinetuneConfig, images: ImageSet, size: int) -> ViewSpec:
    spec = view_spec(config.view or "crop_flip", size=size)
    if spec.size != size:
        raise InputError(f"{config.view} makes views of {spec.size} px, not of {size}: give --size {spec.size}.")
    if not images.flippable:
        spec = replace(spec, hflip=0.0)
        if config.view is None:
            spec = replace(spec, scale=(_LEAST_CROP, 1.0))
    check_transform(spec, [images.pixels(sample) for sample in range(min(_CHECKED_IMAGES, len(images)))])
    return spec


def _recipe(config: FinetuneConfig, loader: ViewLoader) -> Recipe:
    """The effective settings, in the terms of every other training run."""
    epochs = config.num_epochs
    steps = epochs * loader.num_batches()
    base = config.rate * 512 / loader.batch_size  # a recipe states its rates for a batch of 512
    return Recipe(
        name="finetune",
        epochs=epochs,
        warmup_epochs=min(config.warmup_epochs, epochs / 5),
        batch_size=loader.batch_size,
        base_lr=base,
        base_min_lr=base / 100,
        base_warmup_lr=base / 100,
        weight_decay=config.weight_decay,
        label_smoothing=config.label_smoothing,
        drop_path=(("", 0.0 if config.freeze_backbone else config.drop_path),),
        ema_decay=max(0.0, min(0.9999, 1 - 10 / steps)) if config.ema_decay is None else config.ema_decay,
    )


def _card(run: _Run, accuracy: Accuracy | None) -> Card:
    config, images = run.config, run.images
    name = model_name(config.teacher)
    assert images.num_classes is not None
    described = images.describe()
    return Card(
        model=name,
        model_args=build_arguments(name, run.loader.size),
        num_classes=images.num_classes,
        class_names=images.class_names,
        size=run.loader.size,
        preprocessing=run.preprocessing,
        accuracy=None if accuracy is None else accuracy.to_dict(),
        epochs=run.recipe.epochs,
        data={"name": images.name, "split": images.split, **{key: described[key] for key in ("count", "fingerprint")}},
        training={
            "recipe": run.recipe.to_dict(),
            "view": run.loader.spec.to_dict(),
            "seed": config.seed,
            "start": config.teacher if config.uses_tag else "checkpoint" if config.checkpoint else "random",
            "freeze_backbone": config.freeze_backbone,
            "dtype": dtype_name(run.dtype),
        },
    )
