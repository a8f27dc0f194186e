"""Model files: weights as safetensors and, beside them, a JSON card that says what they are.

``model.safetensors`` and ``model.json`` belong together: the card holds the SHA-256 of the weights, so that a pair torn
apart by a crash or a copy is noticed. Weights without a card (timm's, a trainer's own) are read here too. What model
they fit is decided elsewhere.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from logitstore.errors import ModelError

if TYPE_CHECKING:
    import torch

CARD_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """What a model wants to be fed."""

    mean: tuple[float, float, float]
    """Per channel, for values in [0, 1]."""
    std: tuple[float, float, float]
    """Per channel, for values in [0, 1]."""
    crop_pct: float = 0.875
    """Side of the centre crop over the short side of the resized image, for evaluation."""
    interpolation: str = "bicubic"
    """Filter of the evaluation resize."""

    def __post_init__(self) -> None:
        for name in ("mean", "std"):
            object.__setattr__(self, name, tuple(float(value) for value in getattr(self, name)))
        if len(self.mean) != 3 or len(self.std) != 3 or min(self.std) <= 0 or not 0 < self.crop_pct <= 1:
            raise ModelError(
                "Preprocessing needs three means, three positive standard deviations and a crop share in (0, 1], got "
                f"{asdict(self)}."
            )

    def to_dict(self) -> dict[str, Any]:
        """As JSON takes it."""
        return {**asdict(self), "mean": list(self.mean), "std": list(self.std)}


@dataclass(frozen=True, kw_only=True)
class Card:
    """What a file of weights is."""

    model: str
    """timm's name of the model."""
    model_args: dict[str, Any] = field(default_factory=dict)
    """Further arguments of ``timm.create_model``, such as the image size: numbers and lists of them. Never the number
    of classes."""
    num_classes: int
    """C."""
    class_names: tuple[str, ...] | None = None
    """One name per class, or None where they have none."""
    size: int
    """Side of the images it was trained on, in pixels."""
    preprocessing: Preprocessing
    """What it wants to be fed."""
    accuracy: dict[str, Any] | None = None
    """``Accuracy.to_dict`` on held-out images; None where there were none."""
    epochs: float = 0
    """Passes over the training data."""
    data: dict[str, Any] = field(default_factory=dict)
    """Name, count and fingerprint of the training data; no paths."""
    training: dict[str, Any] = field(default_factory=dict)
    """How it was trained: the effective settings."""
    export: dict[str, Any] = field(default_factory=dict)
    """What ``export`` says of the file it wrote; empty for what a run left."""
    sha256: str = ""
    """Of the weights, as ``weights_sha256`` computes it; filled in by ``save_model``."""
    version: int = CARD_VERSION
    """Version of this card's fields."""

    def __post_init__(self) -> None:
        if self.class_names is not None:
            object.__setattr__(self, "class_names", tuple(self.class_names))
            if len(self.class_names) != self.num_classes:
                raise ModelError(
                    f"The card of {self.model} has {len(self.class_names)} names for {self.num_classes} classes."
                )
        if self.num_classes < 1:
            raise ModelError(f"The card of {self.model} has no classes.")
        # They go to timm's constructor, which also takes paths of checkpoints: a file must not name any.
        names, values = list(self.model_args), list(self.model_args.values())
        if not _numbers(values) or any(name.startswith("pretrained") for name in names):
            raise ModelError(
                f"The card of {self.model} has model_args {self.model_args}; only numbers and lists of numbers may "
                "stand there, and nothing about pretrained weights."
            )

    def to_dict(self) -> dict[str, Any]:
        """As JSON takes it."""
        names = None if self.class_names is None else list(self.class_names)
        values = {**asdict(self), "class_names": names, "preprocessing": self.preprocessing.to_dict()}
        return values if self.export else {name: value for name, value in values.items() if name != "export"}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Card:
        """Back from JSON.

        Raises:
            ModelError: another version, or a field that is missing or unknown.
        """
        if values.get("version") != CARD_VERSION:
            raise ModelError(
                f"The card has version {values.get('version')}, this software reads {CARD_VERSION}: use the software "
                "that wrote it, or give the weights without their card."
            )
        known = {entry.name for entry in fields(cls)}
        if unknown := sorted(set(values) - known):
            raise ModelError(f"The card has unknown fields: {', '.join(unknown)}.")
        try:
            return cls(**{**values, "preprocessing": Preprocessing(**values["preprocessing"])})
        except (KeyError, TypeError) as exc:
            raise ModelError(f"The card is incomplete or of another kind ({exc}).") from exc


def _numbers(value: object) -> bool:
    """Whether a value is a number, a truth value, or a list of such, nested or not."""
    return all(map(_numbers, value)) if isinstance(value, list | tuple) else isinstance(value, int | float)


def run_folder(kind: str, model: str, data: str, runs_dir: str | Path = "runs") -> Path:
    """The default folder of a run: ``runs/<kind>/<model>-<data>``.

    Args:
        kind: ``finetune``, ``dump`` or ``train``.
        model: the model's name as the user gave it.
        data: the data set's name (``ImageSet.name``).
        runs_dir: the folder of all runs.
    """
    return Path(runs_dir) / kind / f"{_plain(model)}-{_plain(data)}"


def _plain(name: str) -> str:
    return re.sub(r"[^\w.]+", "_", name).strip("_") or "unnamed"


def weights_path(path: str | Path) -> Path:
    """The file of weights meant by a path: itself, or ``model.safetensors`` in it where it is a folder."""
    path = Path(path).expanduser()
    return path / "model.safetensors" if path.is_dir() else path


def card_path(weights: str | Path) -> Path:
    """Where the card of these weights lies: the same name, ending in ``.json``."""
    return Path(weights).with_suffix(".json")


def save_model(path: str | Path, state: Mapping[str, torch.Tensor], card: Card) -> Card:
    """Write weights and card. Either file is whole or absent, whatever happens.

    Args:
        path: of the weights, ending in ``.safetensors``; folders are made.
        state: a state dict; tensors that share memory are stored once each.
        card: its ``sha256`` is filled in.

    Returns:
        The card as written.
    """
    card = replace(card, sha256=weights_sha256(state))
    save_weights(Path(path), state)
    save_card(Path(path), card)
    return card


def save_weights(path: Path, state: Mapping[str, torch.Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Write weights alone, as ``save_model`` does, and in the file's head what else it is to say of itself."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    path.parent.mkdir(parents=True, exist_ok=True)
    plain = {name: tensor.detach().to("cpu").contiguous().clone() for name, tensor in state.items()}
    head = {"format": "pt", **(metadata or {})}
    try:
        write_atomically(path, lambda temporary: save_file(plain, temporary, metadata=head))
    except SafetensorError as exc:
        if (code := re.search(r"\(os error (\d+)\)", str(exc))) is None:
            raise
        raise OSError(int(code[1]), os.strerror(int(code[1])), str(path)) from exc  # a disk that is full, for one


def save_card(path: Path, card: Card) -> None:
    """Write the card beside a file of weights, as ``save_model`` does."""
    text = json.dumps(card.to_dict(), indent=2, ensure_ascii=False) + "\n"
    write_atomically(card_path(path), lambda temporary: temporary.write_text(text, encoding="utf-8"))


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Replace a file by what ``write`` writes to the path it is given; it is whole or as before, whatever happens."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.touch()
        usual_mode = temporary.stat().st_mode
        write(temporary)
        temporary.chmod(usual_mode)  # safetensors lets nobody else read what it writes
        with temporary.open("rb") as stream:
            os.fsync(stream.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def load_card(weights: str | Path) -> Card | None:
    """The card beside a file of weights; None where there is none.

    Raises:
        ModelError: there is one, and it cannot be read.
    """
    path = card_path(weights_path(weights))
    if not path.is_file():
        return None
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as exc:
        raise ModelError(
            f"The model card {path} cannot be read ({exc}); restore it, or move it away to do without."
        ) from exc
    if not isinstance(values, dict) or "model" not in values or "preprocessing" not in values:
        return None  # A JSON file of another kind that happens to have this name.
    try:
        return Card.from_dict(values)
    except ModelError as exc:
        raise ModelError(f"{path}: {exc}") from exc


def load_weights(path: str | Path) -> dict[str, torch.Tensor]:
    """A state dict from safetensors or a trainer's checkpoint, EMA weights first; never runs code from the file.

    Raises:
        ModelError: no such file, or no state dict of tensors in it.
    """
    import torch
    from timm.models import load_state_dict

    path = weights_path(path)
    if not path.is_file():
        raise ModelError(f"No file of weights at {path}: give one, or the folder of a run that has ended.")
    try:
        state = load_state_dict(str(path), use_ema=True, device="cpu")
    except Exception as exc:  # torch, pickle, zipfile and safetensors each raise kinds of their own
        # torch's text advises to unpickle what it refused; that is what this function is for not doing.
        reason = type(exc).__name__ if "weights_only" in str(exc) else f"{type(exc).__name__}: {exc}"
        raise ModelError(
            f"{path} cannot be read as weights ({reason.splitlines()[0].rstrip(': ')[:200]}): give safetensors, or a "
            "checkpoint that holds only tensors."
        ) from exc
    if not state or not all(isinstance(tensor, torch.Tensor) for tensor in state.values()):
        raise ModelError(
            f"{path} holds no state dict of tensors (looked for state_dict_ema, model_ema, state_dict, model)."
        )
    return dict(state)


def load_model(path: str | Path) -> tuple[dict[str, torch.Tensor], Card | None]:
    """Weights and their card, which must belong together.

    Raises:
        ModelError: either cannot be read, or the card is of other weights.
    """
    state, card = load_weights(path), load_card(path)
    if card is not None and (present := weights_sha256(state)) != card.sha256:
        raise ModelError(
            f"The card {card_path(weights_path(path))} belongs to other weights (it says SHA-256 {card.sha256[:12]}…, "
            f"the file has {present[:12]}…): run finetune or train again, or move the card away to do without."
        )
    return state, card


def weights_sha256(state: Mapping[str, torch.Tensor]) -> str:
    """SHA-256 over names, dtypes, shapes and bytes in the order of names: the same for every file format and device."""
    import torch

    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().to("cpu").contiguous()
        shape = ",".join(map(str, tensor.shape))
        digest.update(f"{name}\0{str(tensor.dtype).removeprefix('torch.')}\0{shape}\0".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
