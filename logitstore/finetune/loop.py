"""``finetune``: from a configuration to weights and their card.

Here a run is put together out of the images, the teacher and its folder; what happens then, and when, lives in
``learning.run``.
"""

from __future__ import annotations

import os
import time
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from logitstore.cards import Card, Preprocessing, load_model, run_folder, weights_sha256
from logitstore.device import default_workers, dtype_name, require_runs, resolve_device, resolve_dtype
from logitstore.distributed import Ranks, joined
from logitstore.errors import DataError, InputError
from logitstore.finetune.config import FinetuneConfig, FinetuneResult
from logitstore.images import ImageSet, open_images
from logitstore.learning.criterion import make_criterion
from logitstore.learning.feed import Feed
from logitstore.learning.folder import RunFolder, require_elsewhere
from logitstore.learning.learner import Learner
from logitstore.learning.run import Run
from logitstore.learning.validation import open_validation
from logitstore.loader import ViewLoader
from logitstore.models import (
    backbone_weights,
    build_model,
    classifier_prefixes,
    model_name,
    own_preprocessing,
    pretrained_model,
)
from logitstore.progress import ProgressFactory, start
from logitstore.views import ViewSpec, check_transform, view_spec
from students import build_arguments
from students.recipes import Recipe
from students.transfer import State, arguments_in

_VIEW = "crop_flip"
_LEAST_CROP = 0.6  # of the area, where an image must not be flipped: characters lose their meaning in small pieces


@dataclass(frozen=True, kw_only=True)
class _Start:
    """A teacher before the first step."""

    model: nn.Module
    preprocessing: Preprocessing
    """How its images are normalised: as those that its weights were made on."""
    weights: str
    """Where they come from: ``random``, ``pretrained``, or the SHA-256 of the file's."""
    model_args: dict[str, Any]
    """Arguments of ``timm.create_model``."""


def finetune(config: FinetuneConfig, progress: ProgressFactory | None = None) -> FinetuneResult:
    """Train a teacher on labels and save it where ``dump`` looks for it, or go on with the run in its folder.

    Called again with the same configuration it resumes where the last checkpoint was written, exactly: the weights it
    ends with are those of an unbroken run. Ctrl-C and SIGTERM end it after the step, with a checkpoint. Processes that
    torchrun started share each batch, as in ``train``.

    Args:
        config: what to train, and how.
        progress: how the main process shows progress; None is silent.

    Raises:
        PeerError: another process failed.
        DataError: the data set has no labels, or cannot be read.
        ModelError: no such model, or its weights cannot be had.
        MismatchError: the folder holds another run. Nothing is written.
        NonFiniteError: the loss is NaN or infinite.
        InputError: another value that cannot be used.
    """
    with joined() as ranks:
        with ranks.agreed():
            run = _prepare(config, _open_training(config, progress, ranks), ranks)
        began = time.monotonic()
        with closing(run.feed.loader):
            run.carry_out("finetune", progress, fresh=config.fresh, tensorboard=config.tensorboard)
    assert run.epoch_loss is not None
    return FinetuneResult(
        checkpoint=str(run.folder.weights),
        model=run.card.model,
        num_classes=run.card.num_classes,
        epochs=run.validated,
        steps=run.learner.step,
        loss=run.epoch_loss,
        accuracy=run.accuracy,
        images_per_second=run.images_per_second,
        seconds=time.monotonic() - began,
        sha256=weights_sha256(run.learner.result.state_dict()),
    )


def _prepare(config: FinetuneConfig, images: ImageSet, ranks: Ranks) -> Run:
    """All that is fixed before the first step; nothing is written."""
    device = resolve_device(config.device)
    dtype = resolve_dtype(config.dtype, device)
    out = Path(config.out) if config.out else run_folder("finetune", config.teacher, images.name)
    if config.checkpoint is not None:
        require_elsewhere(config.checkpoint, out, option="--checkpoint")
    feed = _open_feed(config, images, device, ranks)
    begin = _initial_model(config, feed.num_classes, feed.loader.size)
    require_runs(begin.model, feed.loader.size, name=config.teacher)
    _require_writable(out)
    recipe = _recipe(config, feed.loader)
    learner = Learner(
        begin.model,
        make_criterion(recipe),
        recipe,
        preprocessing=begin.preprocessing,
        steps_per_epoch=feed.steps_per_epoch,
        seed=config.seed,
        device=device,
        dtype=dtype,
        trained=_freeze_all_but_classifier(begin.model) if config.freeze_backbone else None,
        rate_option="--lr",
        ranks=ranks,
    )
    identity = {
        "teacher": model_name(config.teacher),
        "start": begin.weights,
        "freeze_backbone": config.freeze_backbone,
        **feed.identity(),
        "preprocessing": begin.preprocessing.to_dict(),
        "seed": config.seed,
        "device": device.type,
        "dtype": dtype_name(dtype),
        "learning_rates": vars(recipe.learning_rates(recipe.batch_size)),
        "training": recipe.to_dict(),
    }
    return Run(
        feed=feed,
        learner=learner,
        folder=RunFolder(out, identity, config.options()),
        epochs=recipe.epochs,
        card=_card(config, feed, learner, recipe, begin.model_args),
        kind="teacher",
        ranks=ranks,
    )


def _open_training(config: FinetuneConfig, progress: ProgressFactory | None, ranks: Ranks) -> ImageSet:
    images = open_images(config.data, subset=config.subset)
    images.require_labels("to train on")
    if images.num_samples < 2 or (images.num_classes or 0) < 2:
        raise DataError(
            f"{images.name} has {images.num_samples} images of {images.num_classes} classes; two of each are the least."
        )
    if ranks.is_main:
        with start(progress, len(images), "img", "check files") as bar:
            images.check(lambda done, _total: bar.advance(done - bar.done))
    return images


def _open_feed(config: FinetuneConfig, images: ImageSet, device: torch.device, ranks: Ranks) -> Feed:
    size = config.size or images.default_size
    batch_size = min(config.batch_size or (128 if device.type == "cuda" else 64), images.num_samples)
    num_classes, class_names = images.num_classes or 0, images.class_names
    loader = ViewLoader(
        images,
        _make_spec(config, images, size),
        run_seed=config.seed,
        batch_size=batch_size - batch_size % 2,
        workers=config.workers or default_workers(device),
        rank=ranks.rank,
        world=ranks.world,
        drop_last=True,
        pinned=device.type == "cuda",
    )
    notes: list[str] = []
    validation = open_validation(
        config.data, config.val_data, class_names=class_names, num_classes=num_classes, notes=notes
    )
    return Feed(
        images=images,
        validation=validation,
        store=None,
        loader=loader,
        num_classes=num_classes,
        class_names=class_names,
        notes=tuple(notes),
    )


def _initial_model(config: FinetuneConfig, num_classes: int, size: int) -> _Start:
    state, card = ({}, None) if config.checkpoint is None else load_model(config.checkpoint)
    common: dict[str, Any] = {
        "num_classes": num_classes,
        "size": size,
        "drop_path": 0.0 if config.freeze_backbone else config.drop_path,
        "seed": config.seed,
        "model_args": _arguments(model_name(config.teacher), size, state, card),
    }
    model = (pretrained_model if config.uses_tag else build_model)(config.teacher, **common)
    preprocessing = own_preprocessing(model, size)
    if config.checkpoint is None:
        weights = "pretrained" if config.uses_tag else "random"
        return _Start(model=model, preprocessing=preprocessing, weights=weights, model_args=common["model_args"])
    model.load_state_dict(backbone_weights(config.teacher, state, model), strict=False)
    if card is not None:
        preprocessing = replace(preprocessing, mean=card.preprocessing.mean, std=card.preprocessing.std)
    sha256 = weights_sha256(state)
    return _Start(model=model, preprocessing=preprocessing, weights=sha256, model_args=common["model_args"])


def _arguments(name: str, size: int, state: State, card: Card | None) -> dict[str, Any]:
    """Arguments of the model: those that a file's model was made with, but for what follows from the size."""
    of_size = build_arguments(name, size)
    told = arguments_in(state, name) if card is None else card.model_args if card.model == name else {}
    return build_arguments(name, size, {key: value for key, value in told.items() if key not in of_size})


def _freeze_all_but_classifier(model: nn.Module) -> list[nn.Module]:
    """The classifier's modules, the only ones that still have gradients."""
    prefixes = classifier_prefixes(model)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.startswith(prefixes))
    return [model.get_submodule(prefix.removesuffix(".")) for prefix in prefixes]


def _require_writable(folder: Path) -> None:
    """A run of hours must not end at a path that cannot be written to; nothing is made yet."""
    there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        raise InputError(f"{folder} cannot be written to ({there} forbids it): choose another folder with --out.")


def _make_spec(config: FinetuneConfig, images: ImageSet, size: int) -> ViewSpec:
    spec = view_spec(config.view or _VIEW, size=size)
    if spec.size != size:
        raise InputError(f"{config.view} makes views of {spec.size} px, not of {size}: give --size {spec.size}.")
    if not images.flippable:
        spec = replace(spec, hflip=0.0)
        if config.view is None:
            spec = replace(spec, scale=(_LEAST_CROP, 1.0))
    check_transform(spec, map(images.pixels, range(len(images))))
    return spec


def _recipe(config: FinetuneConfig, loader: ViewLoader) -> Recipe:
    """The effective settings, in the terms of every other training run."""
    epochs = config.num_epochs
    steps = epochs * loader.num_batches()
    base = config.rate * 512 / loader.batch_size  # a recipe states its rates for a batch of 512
    return Recipe(
        name="finetune",
        distillation="none",
        epochs=epochs,
        warmup_epochs=min(config.warmup_epochs, epochs / 5),
        batch_size=loader.batch_size,
        base_lr=base,
        base_min_lr=base / 100,
        base_warmup_lr=base / 100,
        weight_decay=config.weight_decay,
        label_smoothing=config.label_smoothing,
        drop_path=(("", 0.0 if config.freeze_backbone else config.drop_path),),
        view=_VIEW,
        size=loader.size,
        ema_decay=max(0.0, min(0.9999, 1 - 10 / steps)) if config.ema_decay is None else config.ema_decay,
    )


def _card(config: FinetuneConfig, feed: Feed, learner: Learner, recipe: Recipe, model_args: dict[str, Any]) -> Card:
    """The card of the teacher before the first step."""
    name, images = model_name(config.teacher), feed.images
    described = images.describe()
    return Card(
        model=name,
        model_args=model_args,
        num_classes=feed.num_classes,
        class_names=feed.class_names,
        size=feed.loader.size,
        preprocessing=learner.preprocessing,
        data={"name": images.name, "split": images.split, **{key: described[key] for key in ("count", "fingerprint")}},
        training={
            "recipe": recipe.to_dict(),
            "view": feed.loader.spec.to_dict(),
            "seed": config.seed,
            "start": config.teacher if config.uses_tag else "checkpoint" if config.checkpoint else "random",
            "freeze_backbone": config.freeze_backbone,
            "dtype": dtype_name(learner.dtype),
        },
    )
