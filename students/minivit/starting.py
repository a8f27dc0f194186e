"""Weights of a model with less sharing, or with none, for a multiplexed one: what is left, what starts as identity."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from students.minivit.sharing import referred
from students.minivit.swin import MultiplexedWindowAttention
from students.minivit.transformations import HeadTransform, MlpTransform
from students.minivit.vit import KeyPositions

_MLP = ".mlp.fc1.weight"
_TABLE = "relative_position_bias_table"
_TRANSFORMATION = re.compile(r"(?P<block>.+)\.(attn\.(pre_softmax|post_softmax|key_positions)|mlp_transform)\b.*")


@dataclass(frozen=True, kw_only=True)
class Start:
    """What a multiplexed model takes of weights with less sharing."""

    state: dict[str, Tensor]
    """The weights that have a place in the model."""
    own: dict[str, Tensor]
    """What the weights have none of: the model's transformations, as neutral as their form allows, by its names."""
    words: tuple[str, ...]
    """Sentences for people."""


def start_from(state: Mapping[str, Tensor], model: nn.Module) -> Start | None:
    """How a multiplexed model starts from weights; None where the two share alike, or the model shares nothing.

    Each group takes the weights of its first block; those of the others are left. Where the weights have no
    transformations, the model's change nothing, but for the norm of the reference's form before the MLP. The position
    of a class token is left, too, where the model has none.

    Raises:
        ValueError: blocks of the weights share what the model's blocks have of their own, or have transformations that
            the model's have not, or have in another form.
    """
    wanted = model.state_dict()
    for name in wanted:
        if name.endswith(_MLP) and name not in state and name.replace(_MLP, ".norm1.weight") in state:
            raise ValueError(
                f"Blocks of the weights share what the student's have of their own ({name} is not in them): make the "
                "student with as much sharing as theirs."
            )
    for name in state:
        if name not in wanted and _has_block_of(name, wanted):
            raise ValueError(
                f"The weights have a transformation that the student has not, or has in another form ({name}): make "
                "the student with the transformations of theirs."
            )
    elsewhere = shared_names(model)
    left = [name for name in state if name in elsewhere]
    words = []
    if left:
        count = sum(state[name].numel() for name in left)
        words.append(
            f"Blocks share weights: each group takes its first block's, {count:,} numbers of the others' are left."
        )
    own: dict[str, Tensor] = {}
    for kind, (path, tensors) in _neutral(model):
        if not _has_block_of(path, state):  # it lies after the cut, and stays random
            continue
        missing = {f"{path}.{leaf}": tensor for leaf, tensor in tensors.items() if f"{path}.{leaf}" not in state}
        if 0 < len(missing) < len(tensors):
            raise ValueError(
                f"The weights have a transformation in another form than the student ({next(iter(missing))} is not in "
                "them): make the student with the transformations of theirs."
            )
        own |= missing
        if missing and kind not in words:
            words.append(kind)
    if not words:
        return None
    kept = {name: tensor for name, tensor in state.items() if name not in elsewhere}
    if {"cls_token", "pos_embed"} <= kept.keys() and "cls_token" not in wanted:
        del kept["cls_token"]
        positions = kept["pos_embed"].shape[1]
        if math.isqrt(positions) ** 2 != positions:  # else only the patches have one
            kept["pos_embed"] = kept["pos_embed"][:, 1:]
        words.append("The class token and its position are left: this model has none.")
    return Start(state=kept, own=own, words=tuple(words))


def _has_block_of(name: str, state: Mapping[str, Tensor]) -> bool:
    """Whether weights have the block that this is a transformation of."""
    found = _TRANSFORMATION.fullmatch(name)
    return found is not None and f"{found['block']}.norm1.weight" in state


def shared_names(model: nn.Module) -> dict[str, str]:
    """Names that a model's tensors would have if each block had its own, with those of the tensors that stand in."""
    owners = {id(parameter): name for name, parameter in model.named_parameters()}
    names = {}
    for path, module in model.named_modules():
        for attribute in ("attn", "mlp", "qkv", "proj"):
            if (part := referred(module).get(attribute)) is not None:
                for leaf, parameter in part.named_parameters():
                    names[f"{path}.{attribute}.{leaf}"] = owners[id(parameter)]
        if isinstance(module, MultiplexedWindowAttention) and module.table_of is not None:
            names[f"{path}.{_TABLE}"] = owners[id(module.table_of.relative_position_bias_table)]
    return names


def _neutral(model: nn.Module) -> Iterator[tuple[str, tuple[str, dict[str, Tensor]]]]:
    """For each transformation, what it starts as, in words, its name and its parameters."""
    for path, module in model.named_modules():
        if isinstance(module, HeadTransform):
            yield "Maps across heads are not in the weights: they start as identities.", (path, module.neutral())
        elif isinstance(module, MlpTransform):
            yield f"Convolutions before the MLPs are not in the weights: {module.beginning}", (path, module.neutral())
        elif isinstance(module, KeyPositions):
            zeros = {"table": torch.zeros_like(module.table)}
            yield "Relative positions on keys are not in the weights: they start at 0.", (path, zeros)
