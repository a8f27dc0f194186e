"""A teacher that is ready to run. Shape suffixes: B batch, C classes, H height, W width."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from logitstore.cards import Preprocessing
from logitstore.device import autocast, normalise
from logitstore.errors import ModelError


@dataclass(frozen=True, kw_only=True, eq=False)
class Teacher:
    """A model that gives logits, ready to run."""

    model: Callable[[Tensor], Any]
    """From normalised images [B, 3, size, size] to logits [B, C]; in eval mode if it is a module."""
    name: str
    """timm's name, or ``module:function``."""
    source: str
    """Where the weights came from: a path, or a pretrained tag."""
    sha256: str
    """Of the weights: over sorted names, dtypes, shapes and bytes of the state dict."""
    num_classes: int
    """C."""
    class_names: tuple[str, ...] | None
    """One name per class, where they are known."""
    preprocessing: Preprocessing
    """What the model wants to be fed."""
    size: int
    """Side of the views in pixels."""
    device: torch.device
    """Where it runs."""
    dtype: torch.dtype
    """float32, or the type of autocast."""

    def place(self, views_BCHW: NDArray[np.uint8]) -> Tensor:
        """Views on the teacher's device, uint8; from page-locked memory without waiting for the copy."""
        return torch.from_numpy(views_BCHW).to(self.device, non_blocking=True)

    def logits(self, views_BCHW: NDArray[np.uint8] | Tensor) -> Tensor:
        """Logits of views. A GPU is not waited for.

        Args:
            views_BCHW: uint8, [B, 3, size, size], on any device.

        Returns:
            float32 [B, C] on the teacher's device.
        """
        views = torch.from_numpy(views_BCHW) if isinstance(views_BCHW, np.ndarray) else views_BCHW
        with torch.no_grad(), autocast(self.device, self.dtype):
            images = normalise(views, self.preprocessing.mean, self.preprocessing.std, self.device)
            output = self.model(images)
        logits_BC: Tensor = getattr(output, "logits", output).float()  # Hugging Face's models wrap theirs.
        return logits_BC

    def compiled(self, batch_size: int) -> Teacher:
        """The same teacher through ``torch.compile``, which takes a while here, and again for any other batch size.

        Args:
            batch_size: of the views that it will mostly see.

        Raises:
            ModelError: it cannot be compiled, or there is no compiler on this machine.
        """
        # One program for each size: a program for all sizes would round in another way once it is there.
        teacher = replace(self, model=torch.compile(self.model, dynamic=False))
        try:
            teacher.logits(torch.zeros(batch_size, 3, self.size, self.size, dtype=torch.uint8))
        except Exception as exc:  # a compiler may fail in any way on models it does not know
            reason = f"{type(exc).__name__}: {exc}".splitlines()[0][:200]
            raise ModelError(f"{self.name} cannot be compiled ({reason}): leave out --compile.") from exc
        return teacher

    def describe(self) -> dict[str, Any]:
        """What a store's manifest says of it: name, hash, preprocessing; no paths."""
        return {"name": self.name, "sha256": self.sha256, "preprocessing": self.preprocessing.to_dict()}
