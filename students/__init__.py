"""Architectures, and how they are made. Imports nothing of ``logitstore``.

Importing this package registers ``swin_n``, ``swin_m``, Mini-Swin and Mini-DeiT with timm. ``create_student`` makes any
model of timm by its timm name or a short one; ``resolve`` translates. How students are trained stands in ``recipes``,
how they take over a teacher's weights in ``transfer``.
"""

from __future__ import annotations

from students.names import (
    SHORT_NAMES,
    UnknownModelError,
    build_arguments,
    create_student,
    parse_arguments,
    resolve,
)

__all__ = ["SHORT_NAMES", "UnknownModelError", "build_arguments", "create_student", "parse_arguments", "resolve"]
