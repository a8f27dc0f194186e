"""``models``: names, parameters, multiply-accumulates and, on request, the speed of models on this machine.

What the papers print stands beside it with its source and hardware: parameters and MACs can be compared with ours,
speeds only within one machine. A MAC is one multiplication and one addition of a convolution, a linear layer or a
product of matrices in attention; norms, activations and sums count for nothing, as in the papers' counters.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import timm
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from logitstore.device import dtype_name, require_runs, resolve_device, resolve_dtype
from logitstore.errors import InputError
from logitstore.models import build_model, model_name
from logitstore.progress import ProgressFactory, start
from logitstore.published import Published, own_classes, own_size, published_figures
from logitstore.speed import MEASURED_BATCH, device_name, images_per_second
from students.names import SHORT_NAMES

DEFAULT_MODELS = (
    "swin_n",
    "swin_m",
    "swin_t",
    "swin_s",
    "swin_b",
    "tinyvit_5m",
    "tinyvit_11m",
    "tinyvit_21m",
    "tinyvit_21m_384",
    "tinyvit_21m_512",
    "deit_ti",
    "deit_s",
    "deit_b",
    "mini_swin_t",
    "mini_swin_s",
    "mini_swin_b",
    "mini_swin_b_384",
    "mini_deit_ti",
    "mini_deit_s",
    "mini_deit_b",
    "mini_deit_b_384",
)
"""Students and teachers of the papers."""


@dataclass(frozen=True, kw_only=True)
class ModelsConfig:
    """Which models to list, and how. Every field is an option of ``logitstore models``."""

    names: tuple[str, ...] = ()
    """Short or timm names, with ``*`` and ``?`` for several; none takes ``DEFAULT_MODELS``."""
    measure: bool = False
    """Also time the forward pass, in eval mode."""
    num_classes: int | None = None
    """C; None is as the papers give parameters: 100 for Swin (Table X), 1000 for the others."""
    size: int | None = None
    """Side of the images in pixels; None is each model's own."""
    batch_size: int | None = None
    """Images in a timed pass; None is 8 on a CPU and 256 on a GPU."""
    device: str = "auto"
    """Where to time: ``cpu``, ``cuda``, ``cuda:1``, …; ``auto`` takes a GPU if there is one."""
    dtype: str = "auto"
    """``float32``, ``bfloat16`` or ``float16``, by autocast; ``auto`` is bfloat16 on a GPU."""

    def __post_init__(self) -> None:
        for name in ("num_classes", "size", "batch_size"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"--{name.replace('_', '-')} must be at least 1, got {value}.")


@dataclass(frozen=True, kw_only=True)
class ModelFigures:
    """One model in figures."""

    name: str
    """As it was asked for."""
    timm_name: str
    """timm's name."""
    size: int
    """Side of its images in pixels."""
    num_classes: int
    """C."""
    parameters: int
    """Of the whole model, classifier included."""
    macs: int
    """Multiply-accumulates for one image."""
    images_per_second: float | None = None
    """Forward pass; None where it was not measured."""
    published: tuple[Published, ...] | None = ()
    """What papers print of it; None where ``size`` or ``num_classes`` are not theirs."""


@dataclass(frozen=True, kw_only=True)
class ModelsResult:
    """The list."""

    models: tuple[ModelFigures, ...]
    """A model each, in the order asked for."""
    measured: dict[str, Any] | None
    """How speed was measured: batch size, device, dtype, torch's threads on a CPU; None where it was not."""

    def to_dict(self) -> dict[str, Any]:
        """As JSON takes it."""
        return asdict(self)

    def table(self) -> dict[str, Any]:
        """For people: a row a model, with short headings."""
        rows = []
        for figures in self.models:
            row: dict[str, Any] = {"model": figures.name, "timm": figures.timm_name, "px": figures.size}
            row |= {"classes": figures.num_classes, "parameters": figures.parameters, "GMACs": figures.macs / 1e9}
            if figures.images_per_second is not None:
                row["img/s"] = figures.images_per_second
            rows.append({**row, "published": "; ".join(map(str, figures.published or ()))})
        return {"models": rows} if self.measured is None else {"models": rows, "img/s": self.measured}


def list_models(config: ModelsConfig, progress: ProgressFactory | None = None) -> ModelsResult:
    """Count, and on request time, models. torch's generators are left as they were.

    Args:
        config: which models, and how.
        progress: how to show progress; None is silent.

    Raises:
        ModelError: no model goes by a name, or it cannot be made for the size.
        InputError: a device or a type that is not there.
    """
    names = _expanded(config.names or DEFAULT_MODELS)
    device = resolve_device(config.device)
    dtype = resolve_dtype(config.dtype, device)
    batch_size = config.batch_size or MEASURED_BATCH.get(device.type, 8)
    found = []
    with start(progress if config.measure else None, len(names), "model", "models") as bar:
        for name in names:
            full = model_name(name)
            size = config.size or own_size(full)
            num_classes = config.num_classes or own_classes(full)
            parameters, macs = count(name, num_classes=num_classes, size=size)
            rate = None
            if config.measure:
                model = build_model(name, num_classes=num_classes, size=size)
                rate = images_per_second(model, size=size, batch_size=batch_size, device=device, dtype=dtype)
            bar.advance(1)
            found.append(
                ModelFigures(
                    name=name,
                    timm_name=full,
                    size=size,
                    num_classes=num_classes,
                    parameters=parameters,
                    macs=macs,
                    images_per_second=rate,
                    published=published_figures(full, num_classes=num_classes, size=size),
                )
            )
    measured = None
    if config.measure:
        measured = {"batch_size": batch_size, "device": device_name(device), "dtype": dtype_name(dtype)}
        measured |= {"threads": torch.get_num_threads()} if device.type == "cpu" else {}
    return ModelsResult(models=tuple(found), measured=measured)


def count(name: str, *, num_classes: int, size: int) -> tuple[int, int]:
    """Parameters of a model, and its multiply-accumulates for one image of ``size`` pixels.

    Shapes alone are followed where the model allows it, so even large ones take a moment.

    Raises:
        ModelError: no such model, or it does not run on images of this size.
    """
    try:
        with torch.device("meta"):
            return count_made(build_model(name, num_classes=num_classes, size=size), size)
    except Exception:  # some models read values while they are made, or run operations that know no shapes alone
        model = build_model(name, num_classes=num_classes, size=size)
        require_runs(model, size, name=name)
        return count_made(model, size)


def count_made(model: nn.Module, size: int) -> tuple[int, int]:
    """``count`` of a model that is there; it is in eval mode and wants no gradient afterwards."""
    model.eval().requires_grad_(False)  # the counter's hooks fail where a parameter is an input of a layer
    image_1CHW = torch.zeros(1, 3, size, size)
    # Plain products of matrices instead of fused attention, of which the counter does not know every kernel.
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH), torch.no_grad():
        model(image_1CHW)
    return sum(parameter.numel() for parameter in model.parameters()), counter.get_total_flops() // 2


def _expanded(names: Sequence[str]) -> list[str]:
    """The names, with patterns replaced by the short names that fit, or by timm's where none does."""
    found: dict[str, None] = {}
    for name in names:
        if not set(name) & set("*?["):
            found[name] = None
            continue
        # Of several short names for one model the first.
        once = {full: short for short, full in reversed(SHORT_NAMES.items()) if fnmatch.fnmatch(short, name)}
        fitting = list(reversed(once.values())) or timm.list_models(name)
        if not fitting:
            raise InputError(f"No model's name fits {name}: timm.list_models() lists all.")
        found |= dict.fromkeys(fitting)
    return list(found)
