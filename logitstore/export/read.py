"""Reads exported files as their users will: nothing but the file says how the model is made.

A reader takes a file and batches of images, float32 [B, 3, size, size], and gives the logits of each batch.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from logitstore.device import seeded

Arrays = Sequence[NDArray[np.float32]]

# A program must not lean on anything that the process which recorded it has imported or registered.
_FRESH = """
import sys, numpy, torch
program = torch.export.load(sys.argv[1]).module()
with numpy.load(sys.argv[2]) as given, torch.no_grad():
    numpy.savez(sys.argv[3], *(program(torch.from_numpy(given[name])).numpy() for name in given.files))
"""


def read_onnx(file: Path, batches: Arrays) -> Arrays:
    """Through onnxruntime, on the CPU."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    (images,) = session.get_inputs()
    return [session.run(None, {images.name: batch})[0] for batch in batches]


def read_safetensors(file: Path, batches: Arrays) -> Arrays:
    """Through new models of timm's, made as the head of the file says, and as the folder's ``config.json`` does.

    Raises:
        RuntimeError: the two differ.
    """
    import timm
    from safetensors import safe_open

    with safe_open(file, framework="pt") as weights:
        says = weights.metadata()
    arguments = json.loads(says["model_args"])
    with seeded(torch.device("cpu")):  # making layers draws initial weights, which are then replaced
        model = timm.create_model(
            says["architecture"], checkpoint_path=str(file), num_classes=int(says["num_classes"]), **arguments
        )
        whole = timm.create_model(f"local-dir:{file.parent}", pretrained=True)
    with torch.no_grad():
        first, second = ([made.eval()(torch.from_numpy(batch)).numpy() for batch in batches] for made in (model, whole))
    if not all(np.array_equal(*pair, equal_nan=True) for pair in zip(first, second, strict=True)):
        raise RuntimeError("config.json makes another model than the head of the file")
    return first


def read_torch_export(file: Path, batches: Arrays) -> Arrays:
    """In a process of its own, which imports nothing but torch and numpy.

    Raises:
        RuntimeError: it fails; with the last line that it printed.
    """
    with tempfile.TemporaryDirectory() as folder:
        given, found = Path(folder) / "given.npz", Path(folder) / "found.npz"
        np.savez(given, *batches)
        # -P: the working directory is no place to import from.
        words = [sys.executable, "-P", "-c", _FRESH, str(file), str(given), str(found)]
        done = subprocess.run(words, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError((done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1])
        with np.load(found) as logits:
            return [logits[name] for name in logits.files]
