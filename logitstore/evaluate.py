"""``evaluate``: top-1 and top-5 of a model file on a data set, with a 95% interval."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from logitstore.cards import load_model, weights_path, wilson_interval
from logitstore.device import default_workers, require_runs, resolve_device, resolve_dtype
from logitstore.errors import InputError, ModelError
from logitstore.images import open_images
from logitstore.models import default_preprocessing, model_name, restore_model
from logitstore.progress import ProgressFactory, start
from logitstore.scoring import score

_DEFAULT_BATCH = {"cpu": 64, "cuda": 256}


@dataclass(frozen=True, kw_only=True)
class EvalConfig:
    """What to measure, and how. Every field is an option of ``logitstore eval``."""

    checkpoint: str
    """File of weights, or the folder of a run; what ``train`` and ``finetune`` wrote has a card beside it."""
    model: str | None = None
    """Which model the weights are of; None takes the card's word."""
    data: str = "digits"
    """The data set, as ``open_images`` takes it."""
    split: str = "val"
    """The split of it, where it has splits."""
    subset: int | None = None
    """Use only this many samples, evenly spaced."""
    size: int | None = None
    """Side of the views in pixels; None is the card's, else the data set's default."""
    batch_size: int | None = None
    """Images per step of the model; None is 64 on a CPU and 256 on a GPU."""
    workers: int | None = None
    """Threads that decode and resize; None is one per core, half as many on a CPU."""
    device: str = "auto"
    """``cpu``, ``cuda``, ``cuda:1``, …; ``auto`` takes a GPU if there is one."""
    dtype: str = "auto"
    """``float32``, ``bfloat16`` or ``float16``, by autocast; ``auto`` is bfloat16 on a GPU."""

    def __post_init__(self) -> None:
        for name in ("size", "batch_size", "workers"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"--{name.replace('_', '-')} must be at least 1, got {value}.")


@dataclass(frozen=True, kw_only=True)
class EvalResult:
    """What was measured."""

    checkpoint: str
    """The file of weights."""
    model: str
    """timm's name."""
    data: str
    """The data set's name."""
    split: str
    """Its split."""
    size: int
    """Side of the views in pixels."""
    num_samples: int
    """Images looked at."""
    top1: float
    """Share with the right class first, in [0, 1]."""
    top5: float
    """Share with the right class among the first five."""
    top1_interval: tuple[float, float]
    """95% Wilson interval of ``top1``."""

    def to_dict(self) -> dict[str, Any]:
        """As JSON takes it."""
        return {**asdict(self), "top1_interval": list(self.top1_interval)}


def evaluate(config: EvalConfig, progress: ProgressFactory | None = None) -> EvalResult:
    """Measure a model's accuracy on labelled images.

    Args:
        config: what to measure.
        progress: how to show progress; None is silent.

    Raises:
        ModelError: the weights cannot be read, or what they are of is not known.
        DataError: no such data set, or it has no labels.
        InputError: its classes are not the model's.
    """
    state, card = load_model(config.checkpoint)
    path = weights_path(config.checkpoint)
    if config.model is None and card is None:
        raise ModelError(f"There is no card beside {path}, so what model it is of is not known: name it with --model.")
    name = model_name(config.model or (card.model if card is not None else ""))
    images = open_images(config.data, split=config.split, subset=config.subset, whole=True)
    images.require_labels("to measure accuracy")
    size = config.size or (card.size if card is not None else images.default_size)
    device = resolve_device(config.device)
    model = restore_model(name, state, size=size, card=card).to(device)
    require_runs(model, size, name=name)
    images = images.relabelled(card.class_names if card is not None else None)
    with start(progress, len(images), "img", f"eval {name}") as bar:
        accuracy = score(
            model,
            images,
            size=size,
            preprocessing=card.preprocessing if card is not None else default_preprocessing(model),
            device=device,
            dtype=resolve_dtype(config.dtype, device),
            batch_size=config.batch_size or _DEFAULT_BATCH.get(device.type, 64),
            workers=config.workers or default_workers(device),
            advance=bar.advance,
        )
    return EvalResult(
        checkpoint=str(path),
        model=name,
        data=images.name,
        split=images.split,
        size=size,
        num_samples=accuracy.images,
        top1=accuracy.top1 / accuracy.images,
        top5=accuracy.top5 / accuracy.images,
        top1_interval=wilson_interval(accuracy.top1, accuracy.images),
    )
