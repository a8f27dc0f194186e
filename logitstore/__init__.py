"""Run the teacher once; distil vision transformers from disk for ever.

A store is read with ``logitstore.open_store(path).read(epoch, start, stop)``. Every command is a module with a frozen
configuration and one function of the same name, which takes it::

    logitstore.dump.dump(logitstore.DumpConfig(teacher="swin_t"))
    logitstore.train.train(logitstore.TrainConfig(student="tinyvit_21m"))

so ``logitstore.dump``, ``train``, ``finetune``, ``pack``, ``plan``, ``convert``, ``contract``, ``evaluate``,
``export`` and ``recheck`` are the modules always, whatever was imported before. Names resolve on first use: importing
this package loads neither torch, zarr nor numba.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from logitstore import contract, convert, dump, evaluate, export, finetune, pack, plan, recheck, train
    from logitstore.contract import ContractConfig
    from logitstore.convert import ConvertConfig
    from logitstore.dump import DumpConfig, DumpResult
    from logitstore.errors import LogitStoreError
    from logitstore.evaluate import EvalConfig
    from logitstore.export import ExportConfig
    from logitstore.finetune import FinetuneConfig
    from logitstore.images import open_images
    from logitstore.loader import ViewLoader
    from logitstore.pack import PackConfig
    from logitstore.plan import PlanConfig
    from logitstore.recheck import VerifyConfig, verify
    from logitstore.replay import TrainBatches, TrainLoss, ValidationViews, initial_student
    from logitstore.store import Manifest, Store, VerifyReport, create_store, open_store
    from logitstore.train import TrainConfig
    from logitstore.views import Renderer, ViewSpec, view_spec

__version__ = "0.1.0"

__all__ = [
    "ContractConfig",
    "ConvertConfig",
    "DumpConfig",
    "DumpResult",
    "EvalConfig",
    "ExportConfig",
    "FinetuneConfig",
    "LogitStoreError",
    "Manifest",
    "PackConfig",
    "PlanConfig",
    "Renderer",
    "Store",
    "TrainBatches",
    "TrainConfig",
    "TrainLoss",
    "ValidationViews",
    "VerifyConfig",
    "VerifyReport",
    "ViewLoader",
    "ViewSpec",
    "__version__",
    "contract",
    "convert",
    "create_store",
    "dump",
    "evaluate",
    "export",
    "finetune",
    "initial_student",
    "open_images",
    "open_store",
    "pack",
    "plan",
    "recheck",
    "train",
    "verify",
    "view_spec",
]

_MODULES = frozenset(
    {"contract", "convert", "dump", "evaluate", "export", "finetune", "pack", "plan", "recheck", "train"}
)
_HOMES = {
    "ContractConfig": "contract",
    "ConvertConfig": "convert",
    "DumpConfig": "dump",
    "DumpResult": "dump",
    "EvalConfig": "evaluate",
    "ExportConfig": "export",
    "FinetuneConfig": "finetune",
    "LogitStoreError": "errors",
    "Manifest": "store",
    "PackConfig": "pack",
    "PlanConfig": "plan",
    "Renderer": "views",
    "Store": "store",
    "TrainBatches": "replay",
    "TrainConfig": "train",
    "TrainLoss": "replay",
    "ValidationViews": "replay",
    "VerifyConfig": "recheck",
    "VerifyReport": "store",
    "ViewLoader": "loader",
    "ViewSpec": "views",
    "create_store": "store",
    "initial_student": "replay",
    "open_images": "images",
    "open_store": "store",
    "verify": "recheck",
    "view_spec": "views",
}


def __getattr__(name: str) -> object:
    if name in _MODULES:
        return import_module(f"logitstore.{name}")
    if name in _HOMES:
        return getattr(import_module(f"logitstore.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'logitstore' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
