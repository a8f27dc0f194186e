"""timm models with given weights: from a file, from timm's pretrained tags, or fresh. Every failure is a ModelError.

A file keeps the shape it was trained in where that is possible. Where the image size asks for another shape, timm's own
filter for that model resizes what can be resized (position biases, position embeddings). Nothing is ever left at
random when weights were asked for.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from timm.data import resolve_data_config
from timm.models import get_pretrained_cfg
from torch import Tensor, nn

from logitstore.cards import Card, Preprocessing
from logitstore.device import seeded
from logitstore.errors import ModelError
from logitstore.hub import impatient_hub
from students import UnknownModelError, build_arguments, create_student, resolve
from students.heads import classifiers, classifiers_in
from students.tinyvit import published_crop
from students.transfer import arguments_in, by_timm_names

State = Mapping[str, Tensor]

_SMALL = 64  # pixels
_SIZED = ("img_size", "window_sizes")  # arguments of a model that follow from the size of its images


def model_name(name: str) -> str:
    """timm's name for a short or a timm name.

    Raises:
        ModelError: no model goes by this name.
    """
    try:
        return resolve(name)
    except UnknownModelError as exc:
        raise ModelError(str(exc)) from exc


def build_model(
    name: str,
    *,
    num_classes: int | None,
    size: int,
    drop_path: float = 0.0,
    seed: int = 0,
    model_args: Mapping[str, Any] | None = None,
) -> nn.Module:
    """A model with random initial weights that depend on the seed alone; torch's own generator is left as it was.

    Raises:
        ModelError: no such model, or it cannot be made this way.
    """
    arguments = None if model_args is None else dict(model_args)
    try:
        with seeded(torch.device("cpu"), seed):
            return create_student(name, num_classes=num_classes, size=size, drop_path=drop_path, model_args=arguments)
    except ValueError as exc:
        raise ModelError(str(exc)) from exc


def pretrained_model(
    name: str,
    *,
    num_classes: int | None = None,
    size: int,
    drop_path: float = 0.0,
    seed: int = 0,
    model_args: Mapping[str, Any] | None = None,
) -> nn.Module:
    """A model with timm's pretrained weights.

    Args:
        name: short or timm name; without a tag, timm's default one.
        num_classes: None keeps the pretrained classifier; a number replaces it where it has another size.
        size: side of the images in pixels.
        drop_path: rate of stochastic depth.
        seed: of a new classifier's weights.
        model_args: arguments of ``timm.create_model`` instead of those that fit ``size``.

    Raises:
        ModelError: there are no such weights, they cannot be fetched, or they have no classifier and one is wanted.
    """
    model = model_name(name)
    _check_tag(model, keep_classifier=num_classes is None)
    own = None if model_args is None else dict(model_args)
    with impatient_hub() as online:
        try:
            with seeded(torch.device("cpu"), seed):
                return create_student(
                    model, num_classes=num_classes, size=size, drop_path=drop_path, pretrained=True, model_args=own
                )
        except Exception as exc:  # the hub, torch.hub, ssl and sockets each raise kinds of their own
            reason = f"{type(exc).__name__}: {exc}".splitlines()[0][:160] if online else "there is no network"
            raise ModelError(
                f"The pretrained weights of {model} are not in the cache and could not be fetched ({reason}): connect "
                "to the internet, or give a file of weights with --checkpoint (train: --teacher-checkpoint)."
            ) from exc


def _check_tag(model: str, *, keep_classifier: bool) -> None:
    cfg = get_pretrained_cfg(model, allow_unregistered=True)
    if cfg is None:
        return  # A model of the hub: its own configuration decides.
    if not cfg.has_weights:
        raise ModelError(
            f"There are no pretrained weights of {model}: give a file of weights with --checkpoint (train: "
            f"--teacher-checkpoint), or train them with logitstore finetune --teacher {model} --no-pretrained."
        )
    # CLIP-like towers declare the width of their embedding, at most a few thousand, as a number of classes.
    title = f"{model.partition('.')[0]}.{cfg.tag}"
    tower = ("clip" in title or "_pe_core_" in title) and cfg.num_classes not in (0, 1000) and cfg.num_classes < 2048
    if keep_classifier and (tower or cfg.num_classes == 0):
        outputs = f"its {cfg.num_classes} outputs are an embedding, not classes" if tower else "it gives features only"
        raise ModelError(
            f"{title} has no classifier ({outputs}): take weights that were trained on classes, or train one with "
            f"logitstore finetune --teacher {model}."
        )


def restore_model(name: str, state: State, *, size: int, card: Card | None = None) -> nn.Module:
    """A model that holds the weights of a file: the first of what ``restore_made`` gives for the same arguments."""
    return restore_made(name, state, size=size, card=card)[0]


def restore_made(name: str, state: State, *, size: int, card: Card | None = None) -> tuple[nn.Module, dict[str, Any]]:
    """A model that holds the weights of a file; its classes are those of the file's classifier.

    Args:
        name: short or timm name.
        state: the file's state dict, by timm's names or by those of a reference implementation that timm's filters
            or ``students.transfer`` know.
        size: side of the images in pixels.
        card: of the file, if it has one.

    Returns:
        The model, and the arguments of ``timm.create_model`` that it was made with, but for the number of classes.

    Raises:
        ModelError: the file has no classifier, or it is of another model.
    """
    model = model_name(name)
    implied = arguments_in(state, model)
    state = by_timm_names(state)
    num_classes = _count_classes(model, state, size)
    for model_args in _possible_arguments(model, size, implied if card is None else card.model_args, card):
        candidate = build_model(model, num_classes=num_classes, size=size, model_args=model_args)
        if not _differences(state, candidate.state_dict()):
            candidate.load_state_dict(dict(state), strict=True)
            return candidate, model_args
    filtered = _filtered(state, candidate)
    if differences := _differences(filtered, candidate.state_dict()):
        shown = "; ".join(differences[:3]) + ("; ..." if len(differences) > 3 else "")
        raise ModelError(f"These weights are not of {model} at {size} px ({len(differences)} differences: {shown}).")
    candidate.load_state_dict(filtered, strict=True)
    return candidate, model_args


def _possible_arguments(model: str, size: int, told: Mapping[str, Any], card: Card | None) -> list[dict[str, Any]]:
    """Ways to make a model that may fit a file as it is; the last one is made for the size."""
    own = {key: value for key, value in told.items() if key not in _SIZED}
    fitted = build_arguments(model, size, own)
    possible = [fitted] if "img_size" in fitted else [own, fitted]
    if card is not None and (card.size == size or "img_size" not in card.model_args):
        possible.insert(0, dict(card.model_args))
    return possible


def _count_classes(model: str, state: State, size: int) -> int:
    """Classes of a file's classifier: the rows of its weight, by timm's name of it, before or after timm's filter."""
    cfg = get_pretrained_cfg(model, allow_unregistered=True)
    declared = cfg.classifier if cfg is not None else None
    is_tower = any(key.startswith(("visual.", "image_encoder.", "vision_model.")) for key in state)
    if not is_tower:
        found = classifiers_in(state, declared)
        if not found:
            state = _filtered(state, build_model(model, num_classes=None, size=size))
            found = classifiers_in(state, declared)
        if found:
            return len(state[f"{found[0]}.weight"])
    wanted = declared if isinstance(declared, str) else " or ".join(declared or ("head",))
    kind = "it is a tower for image embeddings" if is_tower else f"it has no {wanted}.weight"
    raise ModelError(
        f"These weights of {model} have no classifier ({kind}): take weights that were trained on classes, or train a "
        f"classifier with logitstore finetune --teacher {model} --checkpoint FILE."
    )


def backbone_weights(name: str, state: State, model: nn.Module) -> dict[str, Tensor]:
    """The part of a file's weights that a model with another classifier can take over.

    Raises:
        ModelError: something other than the classifier is missing in the file.
    """
    state = by_timm_names(state)
    own = model.state_dict()
    source = state if not _differences(state, own) else _filtered(state, model)
    kept = {key: tensor for key, tensor in source.items() if key in own and own[key].shape == tensor.shape}
    head = {f"{part}{key}" for part in classifier_prefixes(model) for key in ("weight", "bias")}
    if missing := sorted(set(own) - set(kept) - head):
        raise ModelError(
            f"These weights are not of {name}: {len(missing)} tensors are missing or have another shape "
            f"({', '.join(missing[:3])}{', ...' if len(missing) > 3 else ''})."
        )
    return kept


def classifier_prefixes(model: nn.Module) -> tuple[str, ...]:
    """How the names of the classifier's parameters begin ("head.fc.", ...).

    Raises:
        ModelError: neither timm nor usage says which part of this model is the classifier.
    """
    names = classifiers(model, model.state_dict())
    if not names:
        raise ModelError(f"Which part of {type(model).__name__} is its classifier is not known: take another model.")
    return tuple(f"{part}." for part in names)


def _filtered(state: State, model: nn.Module) -> dict[str, Tensor]:
    """Through timm's filter for this kind of model, which lives in the module that defines it."""
    filter_fn = getattr(sys.modules[type(model).__module__], "checkpoint_filter_fn", None)
    if filter_fn is None:
        return dict(state)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # About how timm's interpolation indexes; nothing a user could change.
            return dict(filter_fn(dict(state), model))
    except Exception as exc:  # filters index and reshape freely: a foreign file breaks them in any way
        reason = f"{type(exc).__name__}: {exc}".splitlines()[0][:160]
        raise ModelError(f"These weights cannot be fitted to {type(model).__name__} ({reason}).") from exc


def _differences(state: State, wanted: State) -> list[str]:
    found = [f"{key} is missing" for key in wanted if key not in state]
    found += [f"{key} is unknown" for key in state if key not in wanted]
    return found + [
        f"{key} has shape {tuple(state[key].shape)} instead of {tuple(wanted[key].shape)}"
        for key in wanted
        if key in state and state[key].shape != wanted[key].shape
    ]


def default_preprocessing(model: object) -> Preprocessing:
    """What timm says a model wants to be fed; ImageNet's values for a model that timm knows nothing about."""
    config = getattr(model, "pretrained_cfg", None)
    values = resolve_data_config({"img_size": 224}, pretrained_cfg=config if isinstance(config, dict) else {})
    mean, std = (getattr(model, key, None) or values[key] for key in ("mean", "std"))
    return Preprocessing(
        mean=tuple(mean),
        std=tuple(std),
        crop_pct=float(values["crop_pct"]),
        interpolation=str(values["interpolation"]),
    )


def own_preprocessing(model: object, size: int) -> Preprocessing:
    """What a model that is trained here is fed: timm's values, but TinyViT's own crop at evaluation.

    Up to 64 px there is no crop: images that small are not framed with a margin that a crop could cut away.
    """
    found = default_preprocessing(model)
    if size <= _SMALL:
        return replace(found, crop_pct=1.0)
    config = getattr(model, "pretrained_cfg", None) or {}
    return replace(found, crop_pct=published_crop(str(config.get("architecture"))) or found.crop_pct)
