"""The formats: how each is written and read back, and the Python that uses it elsewhere.

A format is one entry of ``FORMATS``. What it needs besides torch and timm is imported when it is used.
"""

from __future__ import annotations

import importlib
import io
import json
import shutil
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from logitstore.cards import save_weights
from logitstore.errors import InputError
from logitstore.export.read import Arrays, read_onnx, read_safetensors, read_torch_export
from logitstore.export.subject import INPUT, OUTPUT, Subject

_TRACED = 2  # images in the batch that a program is recorded with; of 1, torch would think that it is always 1

# What timm says of the weights that it has of this architecture.
_OF_OTHER_WEIGHTS = ("tag", "license", "origin_url", "paper_ids", "paper_name", "notes", "description")


@dataclass(frozen=True, kw_only=True)
class Format:
    """A kind of file."""

    file: str
    """Its name in the export's folder."""
    write: Callable[[Subject, Path], dict[str, Any]]
    """Writes it, and what belongs beside it, into a folder; gives what its card is to say besides."""
    read: Callable[[Path, Arrays], Arrays]
    """The logits that it gives for batches of images."""
    imports: tuple[str, ...]
    """What its user imports."""
    use: Callable[[Subject], str]
    """Python from ``batch``, normalised images in float32, to ``logits``, run in the export's folder."""
    needs: tuple[str, ...] = ()
    """Packages to write and to check it with, all in the extra ``export``."""

    def require(self) -> None:
        """Refuse, before any work is done, a format whose packages are not there.

        Raises:
            InputError: one is not installed.
        """
        for package in self.needs:
            try:
                importlib.import_module(package)
            except ImportError as exc:
                raise InputError(
                    f"Exporting {self.file} needs {package}, which is not installed; run: pip install "
                    "'logitstore[export]'."
                ) from exc


def _write_safetensors(subject: Subject, folder: Path) -> dict[str, Any]:
    """Weights, and beside them the configuration that timm and the Hugging Face hub read."""
    from timm.models._hub import save_config_for_hf

    card = subject.card
    save_weights(folder / SAFETENSORS.file, subject.model.state_dict(), subject.metadata())
    fed = {"input_size": (3, card.size, card.size), **card.preprocessing.to_dict()}
    names = {} if card.class_names is None else {"label_names": list(card.class_names)}
    path = folder / "config.json"
    save_config_for_hf(
        subject.model, str(path), model_config={**names, "pretrained_cfg": fed}, model_args=card.model_args
    )
    config = json.loads(path.read_text(encoding="utf-8"))
    for name in _OF_OTHER_WEIGHTS:
        config["pretrained_cfg"].pop(name, None)
    path.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    return {}


def _use_safetensors(subject: Subject) -> str:
    arguments = "".join(f", {name}={value!r}" for name, value in subject.card.model_args.items())
    return f"""\
model = timm.create_model({subject.architecture!r}, checkpoint_path={SAFETENSORS.file!r}, \
num_classes={subject.card.num_classes}{arguments})
with torch.no_grad():
    logits = model.eval()(torch.from_numpy(batch))"""


def _write_onnx(subject: Subject, folder: Path) -> dict[str, Any]:
    import onnx

    with _quiet():
        program = torch.onnx.export(
            subject.model.eval(),
            (subject.images(_TRACED),),
            input_names=[INPUT],
            output_names=[OUTPUT],
            dynamic_shapes=({0: "batch"},),
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    program.model.metadata_props.update(subject.metadata())
    program.save(folder / ONNX.file, external_data=False)
    onnx.checker.check_model(str(folder / ONNX.file), full_check=True)
    return {"opset": program.model.opset_imports[""]}


def _use_onnx(subject: Subject) -> str:
    return f"""\
session = onnxruntime.InferenceSession({ONNX.file!r})
(logits,) = session.run(None, {{{INPUT!r}: batch}})"""


def _write_torch_export(subject: Subject, folder: Path) -> dict[str, Any]:
    batch = torch.export.Dim("batch", min=1)
    with _quiet():
        program = torch.export.export(subject.model.eval(), (subject.images(_TRACED),), dynamic_shapes=({0: batch},))
    # Not straight to the file: torch ends the whole process where the disk is full.
    whole = io.BytesIO()
    torch.export.save(program, whole, extra_files=subject.metadata())
    whole.seek(0)
    with (folder / TORCH_EXPORT.file).open("wb") as file:
        shutil.copyfileobj(whole, file)
    return {}


def _use_torch_export(subject: Subject) -> str:
    return f"""\
model = torch.export.load({TORCH_EXPORT.file!r}).module()
logits = model(torch.from_numpy(batch))"""


@contextmanager
def _quiet() -> Iterator[None]:
    """Without gradients. timm's TinyViT keeps biases it has gathered in an attribute, which a recording leaves out."""
    with warnings.catch_warnings(), torch.no_grad():
        warnings.filterwarnings("ignore", message=r"The tensor attributes? .*attention_bias_cache")
        yield


SAFETENSORS = Format(
    file="model.safetensors",
    write=_write_safetensors,
    read=read_safetensors,
    imports=("timm", "torch"),
    use=_use_safetensors,
)
ONNX = Format(
    file="model.onnx",
    write=_write_onnx,
    read=read_onnx,
    imports=("onnxruntime",),
    use=_use_onnx,
    needs=("onnx", "onnxscript", "onnxruntime"),
)
TORCH_EXPORT = Format(
    file="model.pt2", write=_write_torch_export, read=read_torch_export, imports=("torch",), use=_use_torch_export
)

FORMATS = {"safetensors": SAFETENSORS, "onnx": ONNX, "torch_export": TORCH_EXPORT}
