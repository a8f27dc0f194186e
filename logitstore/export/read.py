"""Reads an exported file as its user will: a program of its own, which knows nothing of this package.

``agree`` starts it: ``python -P read.py FORMAT FILE PACKAGE ROOT IN OUT``. It shows the file's model every array in
``IN.npz`` and writes the logits, in the same order, to ``OUT.npz``. ``PACKAGE``, found in ``ROOT``, is imported for
architectures that timm does not know by itself. Nothing else than the file says how the model is made.
"""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Model = Callable[[NDArray[np.float32]], NDArray[np.float32]]


def _onnx(file: str) -> Model:
    import onnxruntime

    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    (images,) = session.get_inputs()
    return lambda batch: session.run(None, {images.name: batch})[0]


def _torch_export(file: str) -> Model:
    import torch

    return _of_module(torch.export.load(file).module())


def _safetensors(file: str) -> Model:
    import timm
    from safetensors import safe_open

    with safe_open(file, framework="pt") as weights:
        says = weights.metadata()
    arguments = json.loads(says["model_args"])
    model = timm.create_model(
        says["architecture"], checkpoint_path=file, num_classes=int(says["num_classes"]), **arguments
    )
    return _of_module(model.eval())


def _of_module(module: Callable[[Any], Any]) -> Model:
    import torch

    def run(batch: NDArray[np.float32]) -> NDArray[np.float32]:
        with torch.no_grad():
            logits: NDArray[np.float32] = module(torch.from_numpy(batch)).numpy()
        return logits

    return run


_READERS = {"onnx": _onnx, "torch_export": _torch_export, "safetensors": _safetensors}

if __name__ == "__main__":
    kind, path, package, root, given, wanted = sys.argv[1:]
    if kind == "safetensors" and package != "timm":
        sys.path.append(root)
        importlib.import_module(package)
    read = _READERS[kind](path)
    with np.load(given) as batches:
        np.savez(wanted, *(read(batches[name]) for name in batches.files))
