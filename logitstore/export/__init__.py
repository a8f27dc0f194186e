"""A trained model as a file for elsewhere: safetensors for timm, ONNX, or a program of ``torch.export``.

========== ===========================================================================
module     what lives there
========== ===========================================================================
config     what to export, and what came of it
subject    the model that is exported, and what its file says of itself
formats    how each format is written, read and used: one entry a format
read       reads a file as its user will
agree      whether what was read gives the model's own logits
readme     the model card for people
run        ``export``: from configuration to result
========== ===========================================================================
"""

from __future__ import annotations

from logitstore.export.config import ExportConfig, ExportResult
from logitstore.export.run import export

__all__ = ["ExportConfig", "ExportResult", "export"]
