"""Runs an example of the documents in a process of its own, alone or as one of several.

    example_worker.py EXAMPLE.py WEIGHTS OPTIONS

Leaves the student's weights, and the accuracy that the example reports in their metadata. OPTIONS is the configuration
as JSON.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from pathlib import Path
from types import ModuleType

import torch
import torch.distributed as dist
from safetensors.torch import save_file

from logitstore import TrainConfig, process

OWN_PROCESSES = ("with_lightning.py", "with_transformers.py")  # these let processes know each other by themselves


def load(path: Path) -> ModuleType:
    """The example as a module."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def main(example: str, weights: str, options: str) -> None:
    torch.set_num_threads(1)
    if "RANK" in os.environ and Path(example).name not in OWN_PROCESSES:
        dist.init_process_group("gloo")
    student, accuracy = load(Path(example)).train(TrainConfig(**json.loads(options)))
    if os.environ.get("RANK", "0") == "0":
        save_file(student.state_dict(), weights, metadata={"accuracy": repr(accuracy)})
    if dist.is_initialized():
        dist.destroy_process_group()


if __name__ == "__main__":
    process.prepare()
    main(*sys.argv[1:])
