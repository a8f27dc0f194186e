"""Where a teacher's weights are looked for, in which order, and what is refused."""

from __future__ import annotations

import hashlib
import inspect
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from logitstore.cards import Card, Preprocessing, load_card, load_model, run_folder, weights_path, weights_sha256
from logitstore.device import resolve_device, resolve_dtype
from logitstore.errors import InputError, ModelError
from logitstore.images import match_classes
from logitstore.models import default_preprocessing, model_name, pretrained_model, restore_model
from logitstore.teacher.model import Teacher
from students import SHORT_NAMES, build_arguments

if TYPE_CHECKING:
    from logitstore.images import ImageSet

Say = Callable[[str], object]


def load_teacher(
    name: str,
    *,
    checkpoint: str | Path | None = None,
    images: ImageSet | None = None,
    size: int,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    runs_dir: str | Path = "runs",
    say: Say | None = None,
) -> Teacher:
    """Make a teacher with the weights of a file, else of an earlier ``finetune``, else of timm's pretrained tag.

    Args:
        name: a short or timm name, or ``module:function``: a function without arguments that returns a callable from
            normalised images to logits, with attributes ``mean`` and ``std`` if they are not ImageNet's.
        checkpoint: a file of weights, or the folder of a finetune run.
        images: the data set to label. Decides which earlier ``finetune`` counts: the one on the data set of this name,
            if it knows its classes. On digits there is no falling back to pretrained weights.
        size: side of the views in pixels.
        device: see ``resolve_device``.
        dtype: see ``resolve_dtype``.
        runs_dir: the folder of all runs.
        say: is told, in one line, where the weights came from.

    Raises:
        ModelError: no such model or weights, weights of another model, or a model without a classifier.
        InputError: no such device or dtype.
    """
    where = resolve_device(device)
    precision = resolve_dtype(dtype, where)
    if is_custom(name):
        found = _from_function(name, checkpoint)
    elif checkpoint is not None:
        found = _from_file(name, weights_path(checkpoint), size)
    elif (path := _finetuned(name, images, runs_dir, say)) is not None:
        found = _from_file(name, path, size)
    elif images is not None and images.name == "digits":
        raise ModelError(
            f"There are no weights of {name} for digits, and pretrained ones know nothing of them: run "
            f"`logitstore finetune --teacher {name} --data digits` first, or give a file with --checkpoint (train: "
            "--teacher-checkpoint)."
        )
    else:
        found = _from_tag(name, size)
    model = found.model
    if isinstance(model, nn.Module):
        model = model.to(where).eval().requires_grad_(False)
        if where.type == "cuda":
            model = model.to(memory_format=torch.channels_last)
    teacher = Teacher(**{**vars(found), "model": model}, num_classes=0, size=size, device=where, dtype=precision)
    teacher = replace(teacher, num_classes=_count_outputs(teacher))
    if say is not None:
        say(
            f"Teacher {teacher.name}: {teacher.num_classes:,} classes, weights from {teacher.source}, "
            f"SHA-256 {teacher.sha256[:16]}…"
        )
    return teacher


@dataclass(frozen=True, kw_only=True, eq=False)
class _Found:
    """What is known of a teacher before it has run; fields as in ``Teacher``."""

    model: Callable[[Tensor], Any]
    name: str
    source: str
    sha256: str
    class_names: tuple[str, ...] | None
    preprocessing: Preprocessing


def _count_outputs(teacher: Teacher) -> int:
    views = torch.zeros(2, 3, teacher.size, teacher.size, dtype=torch.uint8)
    if getattr(teacher.model, "num_classes", None) == 0:
        raise ModelError(f"{teacher.name} has no classifier (num_classes is 0): it gives features, not logits.")
    try:
        output = teacher.logits(views)
    except Exception as exc:  # a model may fail in any way on images it was not made for
        reason = f"{type(exc).__name__}: {exc}".splitlines()[0][:200]
        raise ModelError(f"{teacher.name} does not run on images of {teacher.size} px ({reason}).") from exc
    if output.ndim != 2 or len(output) != 2:
        raise ModelError(
            f"{teacher.name} has no classifier: for 2 images it gives {list(output.shape)} instead of [2, classes]."
        )
    return int(output.shape[1])


def _from_file(name: str, path: Path, size: int) -> _Found:
    full = model_name(name)
    state, card = load_model(path)
    if card is not None and _base(card.model) != _base(full):
        raise ModelError(f"{path} holds weights of {card.model}, not of {full}: name that one, or another file.")
    try:
        model = restore_model(full, state, size=size, card=card)
    except ModelError as exc:
        raise ModelError(f"{path}: {exc}") from exc
    return _Found(
        model=model,
        name=full,
        source=str(path),
        sha256=weights_sha256(model.state_dict()),
        class_names=card.class_names if card else None,
        preprocessing=card.preprocessing if card else default_preprocessing(model),
    )


def _from_tag(name: str, size: int) -> _Found:
    full = model_name(name)
    # A model that takes images of any size keeps the windows it was trained with, as timm makes it.
    own: dict[str, Any] | None = None if "img_size" in build_arguments(full, size) else {}
    model = pretrained_model(full, size=size, model_args=own)
    tag = getattr(model, "pretrained_cfg", {}).get("tag") or ""
    return _Found(
        model=model,
        name=full,
        source=f"timm's pretrained tag {tag or 'without a name'}",
        sha256=weights_sha256(model.state_dict()),
        class_names=_imagenet_names(model),
        preprocessing=default_preprocessing(model),
    )


def _imagenet_names(model: nn.Module) -> tuple[str, ...] | None:
    """WordNet ids, as ImageNet's folders are called, where timm knows the classes by their number."""
    from timm.data import ImageNetInfo, infer_imagenet_subset

    subset = infer_imagenet_subset(model)
    return tuple(ImageNetInfo(subset).label_names()) if subset else None


def _base(model: str) -> str:
    return model if ":" in model else model.partition(".")[0]


def _finetuned(name: str, images: ImageSet | None, runs_dir: str | Path, say: Say | None) -> Path | None:
    """The file that ``finetune`` left for this teacher and data set, whichever of its names was used then."""
    if images is None:
        return None
    full = model_name(name)
    for known in dict.fromkeys([name, *(short for short, long in SHORT_NAMES.items() if long == full), full]):
        path = weights_path(run_folder("finetune", known, images.name, runs_dir))
        if path.is_file() and (card := load_card(path)) is not None and model_name(card.model) == full:
            reason = _foreign_classes(card, images)
            if reason is None:
                return path
            if say is not None:
                say(f"Not using {path}: {reason}")
    return None


def _foreign_classes(card: Card, images: ImageSet) -> str | None:
    try:
        match_classes(card.class_names, images.class_names)
    except InputError as exc:
        return str(exc)
    if images.num_classes is not None and images.num_classes > card.num_classes:
        return f"it knows {card.num_classes} classes, the data set has {images.num_classes}."
    return None


def is_custom(name: str) -> bool:
    """Whether a teacher's name means a function of the user's own."""
    return ":" in name and not name.startswith(("hf-hub:", "hf_hub:", "local-dir:"))


def _from_function(spec: str, checkpoint: str | Path | None) -> _Found:
    if checkpoint is not None:
        raise ModelError(f"The function {spec} loads its own weights: leave out --checkpoint, or --teacher-checkpoint.")
    function = _import_function(spec)
    try:
        with torch.random.fork_rng(devices=[]):  # making layers draws initial weights, which are then replaced
            model = function()
    except Exception as exc:  # whatever the user's function raises
        raise ModelError(f"The teacher {spec} cannot be made: {type(exc).__name__}: {exc}") from exc
    if not callable(model):
        raise ModelError(f"{spec} returned {type(model).__name__}, which cannot be called with images.")
    state = model.state_dict() if hasattr(model, "state_dict") else None
    names = getattr(model, "class_names", None)
    return _Found(
        model=model,
        name=spec,
        source="its function",
        sha256=weights_sha256(state) if state else _source_sha256(spec, function),
        class_names=tuple(names) if names else None,
        preprocessing=default_preprocessing(model),
    )


def _source_sha256(spec: str, function: Callable[[], Any]) -> str:
    try:
        return hashlib.sha256(inspect.getsource(function).encode()).hexdigest()
    except (OSError, TypeError) as exc:
        raise ModelError(f"{spec} gives no state dict, and its source cannot be read to hash it.") from exc


def _import_function(spec: str) -> Callable[[], Any]:
    module, _, attribute = spec.partition(":")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)  # `python -m` has it there already, the console script does not.
    try:
        function = getattr(import_module(module), attribute, None)
    except Exception as exc:  # whatever the user's module raises
        raise ModelError(f"The teacher {spec} cannot be imported: {type(exc).__name__}: {exc}") from exc
    if not callable(function):
        raise ModelError(f"The module {module} has no function {attribute}.")
    return function  # type: ignore[no-any-return]
