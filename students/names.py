"""Names of models, and making a model by its name.

A name is a short one from ``SHORT_NAMES`` or timm's own, either with a tag of pretrained weights (``swin_t.ms_in22k``).
Models whose shape depends on the image are made for the size they will see.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from typing import Any

import timm
from timm.models import get_pretrained_cfg, is_model
from torch import nn

import students.minivit  # registers Mini-Swin and Mini-DeiT
import students.swin  # noqa: F401  (registers swin_n and swin_m)
from students.tinyvit import fitted_windows

SHORT_NAMES = {
    "swin_t": "swin_tiny_patch4_window7_224",
    "swin_s": "swin_small_patch4_window7_224",
    "swin_b": "swin_base_patch4_window7_224",
    "swin_l": "swin_large_patch4_window7_224",
    "swin_n": "swin_n",
    "swin_m": "swin_m",
    "tinyvit_5m": "tiny_vit_5m_224",
    "tinyvit_11m": "tiny_vit_11m_224",
    "tinyvit_21m": "tiny_vit_21m_224",
    "tinyvit_21m_384": "tiny_vit_21m_384",
    "tinyvit_21m_512": "tiny_vit_21m_512",
    "deit_t": "deit_tiny_patch16_224",
    "deit_ti": "deit_tiny_patch16_224",
    "deit_tiny": "deit_tiny_patch16_224",
    "deit_s": "deit_small_patch16_224",
    "deit_small": "deit_small_patch16_224",
    "deit_b": "deit_base_patch16_224",
    "deit_base": "deit_base_patch16_224",
    "deit_b_384": "deit_base_patch16_384",
    "deit3_s": "deit3_small_patch16_224",
    "deit3_m": "deit3_medium_patch16_224",
    "deit3_b": "deit3_base_patch16_224",
    "deit3_l": "deit3_large_patch16_224",
    "mini_swin_t": "mini_swin_t",
    "mini_swin_tiny": "mini_swin_t",
    "mini_swin_s": "mini_swin_s",
    "mini_swin_small": "mini_swin_s",
    "mini_swin_b": "mini_swin_b",
    "mini_swin_base": "mini_swin_b",
    "mini_swin_b_384": "mini_swin_b_384",
    "mini_deit_ti": "mini_deit_ti",
    "mini_deit_t": "mini_deit_ti",
    "mini_deit_tiny": "mini_deit_ti",
    "mini_deit_s": "mini_deit_s",
    "mini_deit_small": "mini_deit_s",
    "mini_deit_b": "mini_deit_b",
    "mini_deit_base": "mini_deit_b",
    "mini_deit_b_384": "mini_deit_b_384",
}
_SOURCES = ("hf-hub:", "hf_hub:", "local-dir:")
Argument = bool | int | float | tuple[int | float, ...]
"""What an argument of an architecture may be."""
_DECIDED = {
    "num_classes": "the data set says how many classes there are",
    "img_size": "give --size",
    "drop_path_rate": "give --drop-path",
    "features_only": "a student needs its classifier",
}


class UnknownModelError(ValueError):
    """No model goes by this name; the message names close ones."""


def resolve(name: str) -> str:
    """timm's name for a short or a timm name; a tag stays.

    Raises:
        UnknownModelError: no model goes by this name, or it has no such tag.
    """
    if name.startswith(_SOURCES):
        return name
    base, dot, tag = name.partition(".")
    full = SHORT_NAMES.get(base.lower(), base)
    if not is_model(full):
        near = difflib.get_close_matches(base.lower(), sorted({*SHORT_NAMES, *timm.list_models()}), n=4, cutoff=0.5)
        hint = f"; close ones are {', '.join(near)}" if near else ""
        raise UnknownModelError(f"There is no model called {name}{hint} (timm.list_models() lists all).")
    if dot and tag not in (tags := _tags(full)):
        known = f"it has {', '.join(tags)}" if tags else "it has none"
        raise UnknownModelError(f"{base} has no pretrained weights tagged {tag}; {known}.")
    return full + dot + tag


def _tags(model: str) -> list[str]:
    names = timm.list_pretrained(f"{model}.*")
    return [name.partition(".")[2] for name in names]


def parse_arguments(written: Iterable[str]) -> dict[str, Argument]:
    """Arguments of an architecture, as the command line and run files give them.

    Args:
        written: each ``name=value``; a value is a number, ``true``, ``false``, or numbers joined by colons.

    Raises:
        ValueError: one is of another form, is there twice, or is decided elsewhere.
    """
    found: dict[str, Argument] = {}
    for entry in written:
        name, _, value = entry.partition("=")
        if name in _DECIDED or name.startswith("pretrained"):
            raise ValueError(f"{name} is no argument to give here: {_DECIDED.get(name, 'start with given weights')}.")
        if name in found:
            raise ValueError(f"{name} is given twice.")
        try:
            found[name] = _value(value)
        except ValueError as exc:
            raise ValueError(
                f"{entry!r} is no argument of a model: write NAME=VALUE with a number, true, false, or numbers joined "
                "by colons, as in embed_dims=64:128:256:448."
            ) from exc
    return found


def _value(text: str) -> Argument:
    if text in ("true", "false"):
        return text == "true"
    if ":" in text:
        return tuple(_number(part) for part in text.split(":"))
    return _number(text)


def _number(text: str) -> int | float:
    return int(text) if re.fullmatch(r"-?\d+", text) else float(text)


def build_arguments(name: str, size: int, given: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Arguments of ``timm.create_model`` that make a model for images of this size; empty where any size will do.

    Args:
        name: a name as ``resolve`` takes it.
        size: side of the images in pixels.
        given: arguments that are wanted besides, as ``parse_arguments`` returns them; windows of TinyViT that are
            larger than a map are cut to it.
    """
    model, given = resolve(name), dict(given or {})
    if (windows := fitted_windows(model, size, given.get("window_sizes"))) is not None:
        return {**given, "window_sizes": windows}
    if model.startswith(_SOURCES):
        return given
    cfg = get_pretrained_cfg(model, allow_unregistered=True)
    return {**given, "img_size": size} if cfg is not None and cfg.fixed_input_size else given


def create_student(
    name: str,
    *,
    num_classes: int | None,
    size: int,
    drop_path: float = 0.0,
    pretrained: bool = False,
    model_args: dict[str, Any] | None = None,
) -> nn.Module:
    """Make a model. Initial weights come from torch's generator: seed it, or fork it, around the call.

    Args:
        name: a name as ``resolve`` takes it.
        num_classes: C; None for as many as the pretrained weights have.
        size: side of the images in pixels.
        drop_path: rate of stochastic depth, for models that have it.
        pretrained: load the tag's weights, with a new head where C is another than theirs.
        model_args: arguments of ``timm.create_model`` instead of ``build_arguments(name, size)``.

    Raises:
        UnknownModelError: no model goes by this name.
        ValueError: the model has no stochastic depth, or cannot be made for this size.
    """
    model = resolve(name)
    built_for = build_arguments(name, size) if model_args is None else model_args
    # timm's defaults have stochastic depth in some models, so 0 is said, too.
    arguments: dict[str, Any] = {
        "num_classes": num_classes, "pretrained": pretrained, "drop_path_rate": drop_path, **built_for
    }
    while True:
        try:
            return timm.create_model(model, **arguments)
        except TypeError as exc:
            # Not every model takes these two: its shape does not depend on the size, it has no stochastic depth.
            refused = [option for option in arguments if f"unexpected keyword argument '{option}'" in str(exc)]
            if not refused:
                raise _unmade(name, size, built_for, exc) from exc
            if refused[0] not in ("img_size", "drop_path_rate"):
                raise ValueError(f"{name} takes no argument {refused[0]}.") from exc
            if arguments.pop(refused[0]) and refused[0] == "drop_path_rate":
                raise ValueError(f"{name} has no stochastic depth: train it with a drop path of 0.") from exc
        except (ArithmeticError, AssertionError, LookupError, RuntimeError, ValueError) as exc:
            if pretrained:
                raise
            raise _unmade(name, size, built_for, exc) from exc


def _unmade(name: str, size: int, built_for: Mapping[str, Any], reason: Exception) -> ValueError:
    besides = [f"{key}={value}" for key, value in built_for.items() if key != "img_size"]
    wanted = f" with {', '.join(besides)}" if besides else ""
    return ValueError(f"{name} cannot be made{wanted} for images of {size} px ({reason}).")
