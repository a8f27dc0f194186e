"""What became of a student's weights when a teacher's were copied: which parts were taken over, which not, and why.

How they are copied lives in ``transfer``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

COPIED, RESIZED, MAPPED, INITIALISED = KINDS = ("copied", "resized", "mapped", "initialised")
_NUMBERED = re.compile(r"(?P<stem>.*blocks\.)(?P<number>\d+)")


@dataclass(frozen=True, kw_only=True)
class Part:
    """Tensors of one module that met the same fate."""

    module: str
    """The module, or a parameter that belongs to none: a block, a downsampling layer, the stem, a norm, the head."""
    kind: str
    """``copied`` bit for bit; ``resized`` to the student's resolution; ``mapped``: a classifier's rows, by class name;
    ``initialised``: at random, as the student was made."""
    reason: str
    """Why."""
    tensors: tuple[str, ...]
    """Names in the student's state dict."""
    parameters: int
    """Numbers in those of them that are parameters."""


@dataclass(frozen=True, kw_only=True)
class TransferMap:
    """What became of each tensor of a student."""

    cut: int | None
    """Leading blocks that were copied; None where the architectures are the same and the whole model is taken over."""
    teacher_blocks: int
    """Blocks that the teacher has."""
    student_blocks: int
    """Blocks that the student has."""
    merging: str | None
    """A sentence: on which side of the cut the downsampling before the last stage falls; None without either."""
    sharing: tuple[str, ...]
    """Sentences: what a model whose blocks share weights left of weights with less sharing, and what it added."""
    masks: str | None
    """A sentence: with which masks the reference's weights were trained, where the student's are others."""
    parts: tuple[Part, ...]
    """In the order of the student's tensors."""

    def tensors(self, *kinds: str) -> frozenset[str]:
        """Names of the tensors that met one of these fates."""
        return frozenset(name for part in self.parts if part.kind in kinds for name in part.tensors)

    def parameters(self, kind: str) -> int:
        """Numbers in the parameters that met this fate."""
        return sum(part.parameters for part in self.parts if part.kind == kind)

    def lines(self) -> list[str]:
        """The map for people: what was copied, resized, mapped and initialised, where the cut falls, and why."""
        if self.cut is None:
            first = f"The same architecture ({self.student_blocks} blocks): the whole model is taken over."
            if self.sharing:
                first = f"The same architecture ({self.student_blocks} blocks) but for weight multiplexing."
        else:
            left = self.student_blocks - self.cut
            rest = f"{left} of the student's {self.student_blocks} blocks are" if left else "what follows the blocks is"
            first = (
                f"Cut after block {self.cut}: T[:{self.cut}] of the teacher's {self.teacher_blocks} blocks is copied; "
                f"{rest} initialised."
            )
        lines = [first, *(f"  {sentence}" for sentence in self.sharing)]
        for kind in KINDS:
            for reason in dict.fromkeys(part.reason for part in self.parts if part.kind == kind):
                parts = [part for part in self.parts if (part.kind, part.reason) == (kind, reason)]
                count = sum(part.parameters for part in parts)
                modules = ", ".join(_ranges([part.module for part in parts]))
                lines.append(f"  {kind:<11}  {count:>11,}  {modules} ({reason})")
        return [*lines, *(f"  {sentence}" for sentence in (self.merging, self.masks) if sentence is not None)]

    def to_dict(self) -> dict[str, Any]:
        """A summary as JSON takes it: the cut, and for each fate that occurs its parameters and modules."""
        fates = {
            kind: {
                "parameters": self.parameters(kind),
                "modules": _ranges(list(dict.fromkeys(part.module for part in self.parts if part.kind == kind))),
            }
            for kind in KINDS
            if any(part.kind == kind for part in self.parts)
        }
        blocks = {"teacher_blocks": self.teacher_blocks, "student_blocks": self.student_blocks}
        return {"cut": self.cut, **blocks, **fates}


def _ranges(modules: Sequence[str]) -> list[str]:
    """Names of modules, in which blocks that follow each other become one entry: ``layers.2.blocks.0-5``."""

    def run(entry: tuple[int, str]) -> tuple[str, int]:
        position, module = entry
        match = _NUMBERED.fullmatch(module)
        return (module, 0) if match is None else (match["stem"], int(match["number"]) - position)

    found = []
    for (name, _), entries in groupby(enumerate(modules), run):
        numbers = [module.removeprefix(name) for _, module in entries]
        found.append(name + (numbers[0] if len(numbers) == 1 else f"{numbers[0]}-{numbers[-1]}"))
    return found
