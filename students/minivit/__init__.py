"""MiniViT (Zhang et al. 2022): transformers whose consecutive blocks share weights and differ by small transformations.

``multiplex`` makes one of any Swin, ViT or DeiT of timm; importing this package registers the paper's models.
"""

from __future__ import annotations

from students.minivit.models import default_cfgs
from students.minivit.multiplexing import Multiplexing, multiplex

__all__ = ["Multiplexing", "default_cfgs", "multiplex"]
