"""What may happen to a view: one frozen description, relative to the image and to the output.

A spec says how views are distributed; together with a 4-byte seed it says exactly which view is meant. It goes into a
store's manifest, so its fields are part of the store's identity. Drawing lives in ``draw``, pixels in ``render``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from logitstore.errors import ViewError

OPERATIONS = (
    "AutoContrast",
    "Equalize",
    "Invert",
    "Rotate",
    "PosterizeIncreasing",
    "SolarizeIncreasing",
    "SolarizeAdd",
    "ColorIncreasing",
    "ContrastIncreasing",
    "BrightnessIncreasing",
    "SharpnessIncreasing",
    "ShearX",
    "ShearY",
    "TranslateXRel",
    "TranslateYRel",
)
"""RandAugment's operations by timm's names, in timm's order; the order is part of the draw."""

VERSION = 1
MIN_ALPHA, MAX_ALPHA = 0.05, 4.0
_TRANSFORM = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


@dataclass(frozen=True, kw_only=True)
class ViewSpec:
    """The distribution of views. The defaults are a random crop and a flip, nothing else.

    Raises:
        ViewError: a field has a type or a value that no view can have; the message names it.
    """

    size: int
    """Height and width of a view, in pixels."""
    scale: tuple[float, float] = (0.08, 1.0)
    """Least and greatest area of the random crop, as fractions of the image's area."""
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    """Least and greatest aspect ratio (width / height) of the random crop, drawn log-uniformly."""
    hflip: float = 0.5
    """Probability of a left-right flip."""
    rand_augment_layers: int = 0
    """How many RandAugment operations are drawn, with replacement; 0 turns RandAugment off."""
    rand_augment_magnitude: float = 9.0
    """Mean of the operations' magnitude, on a scale from 0 to 10."""
    rand_augment_std: float = 0.5
    """Standard deviation of the magnitude, which is clipped to [0, 10]."""
    rand_augment_prob: float = 0.5
    """Probability with which a drawn operation is applied."""
    rand_augment_ops: tuple[str, ...] = OPERATIONS
    """Names of the operations to draw from, equally likely."""
    color_jitter: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """Half-widths of the brightness, contrast and saturation factors around 1, applied in random order; 0 is off."""
    erasing_prob: float = 0.0
    """Probability that one rectangle is overwritten with per-pixel noise."""
    erasing_area: tuple[float, float] = (0.02, 1 / 3)
    """Least and greatest area of the erased rectangle, as fractions of the view's area."""
    erasing_ratio: tuple[float, float] = (0.3, 1 / 0.3)
    """Least and greatest aspect ratio (height / width) of the erased rectangle, drawn log-uniformly."""
    noise_mean: tuple[float, float, float] = (123.675, 116.28, 103.53)
    """Mean of the erasing noise for red, green and blue, in pixel values."""
    noise_std: tuple[float, float, float] = (58.395, 57.12, 57.375)
    """Standard deviation of the erasing noise for red, green and blue, in pixel values."""
    mixup: float = 0.0
    """Alpha of Mixup's Beta(alpha, alpha) weight; 0 turns Mixup off."""
    cutmix: float = 0.0
    """Alpha of CutMix's Beta(alpha, alpha) weight; 0 turns CutMix off."""
    mix_prob: float = 1.0
    """Probability that a pair of neighbours is mixed at all, where Mixup or CutMix is on."""
    mix_switch: float = 0.5
    """Probability of CutMix rather than Mixup where both are on."""
    fill: tuple[int, int, int] = (124, 116, 104)
    """Red, green and blue of the pixels that rotation, shear and translation uncover."""
    interpolation: str = "bicubic"
    """Interpolation of crop and geometric operations; only "bicubic" is defined."""
    transform: str | None = None
    """The user's own transform as ``module:function``, which then makes the whole view up to mixing."""
    version: int = VERSION
    """Version of the rules by which seed and spec become a view."""

    def __post_init__(self) -> None:
        for field in fields(self):
            object.__setattr__(self, field.name, _converted(field.name, getattr(self, field.name), str(field.type)))
        if self.version != VERSION:
            raise ViewError(
                f"This view spec has version {self.version}, and this logitstore renders version {VERSION}; "
                "use the logitstore that wrote it."
            )
        self._check_ranges()
        if self.interpolation != "bicubic":
            raise ViewError(f'View field interpolation must be "bicubic", got "{self.interpolation}".')
        if self.transform is not None and not _TRANSFORM.fullmatch(self.transform):
            raise ViewError(f'View field transform must read module:function, got "{self.transform}".')
        if not self.rand_augment_ops or set(self.rand_augment_ops) - set(OPERATIONS):
            raise ViewError(
                f"View field rand_augment_ops must name some of {', '.join(OPERATIONS)}; "
                f"got {', '.join(self.rand_augment_ops) or 'nothing'}."
            )

    def _check_ranges(self) -> None:
        _between("size", 1, 8192, self.size)
        _ordered("scale", 0.0, 1.0, self.scale)
        _ordered("ratio", 0.0, 1000.0, self.ratio)
        _ordered("erasing_area", 0.0, 1.0, self.erasing_area)
        _ordered("erasing_ratio", 0.0, 1000.0, self.erasing_ratio)
        for name in ("hflip", "rand_augment_prob", "erasing_prob", "mix_prob", "mix_switch"):
            _between(name, 0.0, 1.0, getattr(self, name))
        _between("rand_augment_layers", 0, 16, self.rand_augment_layers)
        _between("rand_augment_magnitude", 0.0, 10.0, self.rand_augment_magnitude)
        _between("rand_augment_std", 0.0, 10.0, self.rand_augment_std)
        _between("color_jitter", 0.0, 1.0, *self.color_jitter)
        _between("noise_mean", 0.0, 255.0, *self.noise_mean)
        _between("noise_std", 0.0, 255.0, *self.noise_std)
        _between("fill", 0, 255, *self.fill)
        for name in ("mixup", "cutmix"):
            alpha = getattr(self, name)
            if alpha != 0.0 and not MIN_ALPHA <= alpha <= MAX_ALPHA:
                raise ViewError(f"View field {name} must be 0 (off) or lie in [{MIN_ALPHA}, {MAX_ALPHA}], got {alpha}.")

    @property
    def mixes(self) -> bool:
        """Whether neighbours may be mixed."""
        return self.mix_prob > 0 and (self.mixup > 0 or self.cutmix > 0)

    def to_dict(self) -> dict[str, Any]:
        """All fields as JSON types; ``from_dict`` gives an equal spec back."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ViewSpec:
        """The spec with these fields; fields left out take their defaults.

        Raises:
            ViewError: a field is unknown, has an impossible value, or ``size`` is absent.
        """
        known = [field.name for field in fields(cls)]
        for name in values:
            if name not in known:
                raise ViewError(f'A view spec has no field "{name}"; it has {", ".join(known)}.')
        if "size" not in values:
            raise ViewError("A view spec needs the field size, the height and width of a view in pixels.")
        return cls(**values)


def _converted(name: str, value: Any, kind: str) -> Any:
    """``value`` as the field's declared type, so that 1 and 1.0, list and tuple describe the same spec."""
    if kind == "int":
        return _number(name, value, int)
    if kind == "float":
        return _number(name, value, float)
    if kind.startswith("tuple["):
        if isinstance(value, str) or not isinstance(value, (list, tuple)):
            raise ViewError(f"View field {name} must be a list, got {value!r}.")
        kinds = kind[len("tuple[") : -1].split(", ")
        if kinds[-1] != "..." and len(value) != len(kinds):
            raise ViewError(f"View field {name} must have {len(kinds)} entries, got {list(value)}.")
        return tuple(_converted(name, entry, kinds[0]) for entry in value)
    if not isinstance(value, str) and not (value is None and kind.endswith("None")):
        raise ViewError(f"View field {name} must be a string, got {value!r}.")
    return value


def _number(name: str, value: Any, kind: Callable[[Any], int | float]) -> int | float:
    word = "a whole number" if kind is int else "a number"
    if isinstance(value, (bool, str)):
        raise ViewError(f"View field {name} must be {word}, got {value!r}.")
    try:
        number = kind(value)
    except (TypeError, ValueError, OverflowError) as exc:
        raise ViewError(f"View field {name} must be {word}, got {value!r}.") from exc
    if number != value or not math.isfinite(number):
        raise ViewError(f"View field {name} must be {word}, got {value!r}.")
    return number


def _between(name: str, low: float, high: float, *values: float) -> None:
    if not all(low <= value <= high for value in values):
        raise ViewError(f"View field {name} must lie in [{low}, {high}], got {', '.join(map(str, values))}.")


def _ordered(name: str, low: float, high: float, pair: tuple[float, float]) -> None:
    if not low < pair[0] <= pair[1] <= high:
        raise ViewError(
            f"View field {name} must be two numbers, {low} < least <= greatest <= {high}, got {list(pair)}."
        )


def _crop_flip(size: int) -> ViewSpec:
    return ViewSpec(size=size)


def _tinyvit(size: int) -> ViewSpec:
    return ViewSpec(size=size, rand_augment_layers=2, erasing_prob=0.25)


NAMED: dict[str, Callable[[int], ViewSpec]] = {"tinyvit": _tinyvit, "crop_flip": _crop_flip}
"""Specs by name: TinyViT's recipe (``rand-m9-mstd0.5-inc1``, erasing 0.25), and crop and flip alone."""


def view_spec(name: str, *, size: int) -> ViewSpec:
    """The spec a user names.

    Args:
        name: ``tinyvit``, ``crop_flip``, the path of a YAML file, or ``module:function`` for a transform of the
            user's own, which is imported here and nowhere else. A YAML file holds fields of ``ViewSpec``; ``base``
            (default ``crop_flip``) names the spec that gives those left out, and ``size`` overrides the argument.
        size: height and width of a view, in pixels.

    Raises:
        ViewError: nothing has this name, or what has it is not a valid spec or transform.
    """
    if name in NAMED:
        return NAMED[name](size)
    if _is_file(name):
        return _from_yaml(Path(name), size)
    if names_transform(name):
        from logitstore.views.custom import load_transform

        load_transform(name)
        return ViewSpec(size=size, transform=name)
    raise ViewError(f'There is no view "{name}"; use {", ".join(NAMED)}, the path of a YAML file, or module:function.')


def names_transform(name: str) -> bool:
    """Whether ``view_spec`` would import a user's own transform for this name, which no file may ask for."""
    return name not in NAMED and not _is_file(name) and _TRANSFORM.fullmatch(name) is not None


def _is_file(name: str) -> bool:
    path = Path(name)
    return path.suffix in (".yaml", ".yml") or path.is_file()


def _from_yaml(path: Path, size: int) -> ViewSpec:
    import yaml

    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as exc:
        raise ViewError(f"The view spec {path} cannot be read: {exc}") from exc
    if values is None:
        values = {}
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise ViewError(f"The view spec {path} must be a mapping of fields to values.")
    if values.get("transform") is not None:
        raise ViewError(f"The view spec {path} names a transform; give it on the command line: --view module:function.")
    base = values.pop("base", "crop_flip")
    if not isinstance(base, str) or base not in NAMED:
        raise ViewError(f'The view spec {path} has base "{base}"; use {" or ".join(NAMED)}.')
    try:
        return ViewSpec.from_dict(NAMED[base](size).to_dict() | values)
    except ViewError as exc:
        raise ViewError(f"{path}: {exc}") from exc
