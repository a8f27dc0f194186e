"""Weights of the reference implementation (microsoft/Cream, MiniViT) under our names.

There one module stands for a group of blocks and keeps lists of what its repeats have of their own; the length of those
lists tells how many blocks share. Values are not touched; maps across heads of Mini-DeiT, 1x1 convolutions there, lose
their two empty dimensions.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

_SWIN = re.compile(r"(?P<stage>layers\.\d+\.)blocks\.(?P<group>\d+)\.(?P<rest>.+)")
_DEIT = re.compile(r"(?P<stage>)blocks\.(?P<group>\d+)\.block\.(?P<rest>.+)")
_OWN = re.compile(r"(?P<list>[\w.]+?)(?:\.instances)?\.(?P<repeat>\d+)\.(?P<leaf>\w+)")
"""A tensor of one repeat: of a list of modules by number, behind ``instances`` in Mini-DeiT."""
_LISTS = {
    "norm1_list": "norm1",
    "norm2_list": "norm2",
    "norm1": "norm1",
    "norm2": "norm2",
    "proj_l": "attn.pre_softmax",
    "proj_w": "attn.post_softmax",
    "attn.conv_l": "attn.pre_softmax",
    "attn.conv_w": "attn.post_softmax",
    "attn.rpe_k": "attn.key_positions",
    "local_norm_list": "mlp_transform.norm",
    "local_conv_list": "mlp_transform.conv",
}
_DROPPED = ("attn_mask", "relative_position_index")
_TRAINING_ONLY = "fit_dense_C."  # layers of the reference's training with a teacher


def is_reference_checkpoint(state: Mapping[str, Tensor]) -> bool:
    """Whether the names are those of the reference's Mini-Swin or Mini-DeiT, where blocks share weights."""
    return "layers.0.blocks.0.norm1_list.0.weight" in state or "blocks.0.block.norm1.instances.0.weight" in state


def from_reference(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A reference checkpoint's tensors under our names."""
    pattern = _pattern(state)
    repeats = _repeats(state)
    renamed = {}
    for name, tensor in state.items():
        if name.endswith(_DROPPED) or name.startswith(_TRAINING_ONLY):
            continue
        match = pattern.fullmatch(name)
        new = _outside_blocks(name, pattern) if match is None else _in_block(match, repeats[match["stage"]])
        renamed[new] = tensor.flatten(1) if new.endswith("_softmax.weight") else tensor
    return renamed


def arguments_of(state: Mapping[str, Tensor]) -> dict[str, int | bool]:
    """With which arguments a model computes what a reference checkpoint's did: its sharing and, of Swin, its masks."""
    share = max(_repeats(state).values())
    return {"share": share, "reference_mask": True} if _pattern(state) is _SWIN else {"share": share}


def _pattern(state: Mapping[str, Tensor]) -> re.Pattern[str]:
    return _SWIN if "layers.0.blocks.0.norm1_list.0.weight" in state else _DEIT


def _repeats(state: Mapping[str, Tensor]) -> dict[str, int]:
    """How many blocks a group of each stage stands for."""
    repeats: dict[str, int] = {}
    for name in state:
        if (
            (match := _pattern(state).fullmatch(name))
            and (own := _OWN.fullmatch(match["rest"]))
            and own["list"] in _LISTS
        ):
            repeats[match["stage"]] = max(repeats.get(match["stage"], 1), int(own["repeat"]) + 1)
    return repeats


def _in_block(match: re.Match[str], repeats: int) -> str:
    rest, repeat = match["rest"], 0
    if (own := _OWN.fullmatch(rest)) and own["list"] in _LISTS:
        leaf = "table" if own["leaf"] == "lookup_table_weight" else own["leaf"]
        rest, repeat = f"{_LISTS[own['list']]}.{leaf}", int(own["repeat"])
    return f"{match['stage']}blocks.{int(match['group']) * repeats + repeat}.{rest}"


def _outside_blocks(name: str, pattern: re.Pattern[str]) -> str:
    if pattern is _DEIT:
        return name
    # The reference ends a stage with the patch merging, timm begins the next one with it.
    name = re.sub(r"^layers\.(\d+)\.downsample\.", lambda found: f"layers.{int(found[1]) + 1}.downsample.", name)
    return re.sub(r"^head\.(weight|bias)$", r"head.fc.\1", name)
