"""Positions for another resolution: a teacher's tables of biases and embeddings, resized for a student."""

from __future__ import annotations

import warnings
from typing import Any

from timm.layers import resample_abs_pos_embed, resize_rel_pos_bias_table, resize_rel_pos_bias_table_levit
from torch import Tensor, nn


def resized(name: str, tensor: Tensor, wanted: Tensor, student: nn.Module) -> Tensor:
    """A teacher's tensor in the student's shape; only what depends on the resolution may differ.

    Args:
        name: of the tensor, the same in both models.
        tensor: the teacher's.
        wanted: the student's.
        student: whose windows and grid of patches decide.

    Raises:
        ValueError: another width.
    """
    if tensor.shape == wanted.shape:
        return tensor
    owner, _, leaf = name.rpartition(".")
    module: Any = student.get_submodule(owner)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about how timm's interpolation indexes; nothing a user could change
        if leaf == "relative_position_bias_table" and tensor.shape[1:] == wanted.shape[1:]:
            return resize_rel_pos_bias_table(tensor, new_window_size=module.window_size, new_bias_shape=wanted.shape)
        if leaf == "attention_biases" and tensor.shape[:1] == wanted.shape[:1]:
            return resize_rel_pos_bias_table_levit(tensor.T, wanted.T.shape).T.contiguous()
        if name == "pos_embed" and tensor.shape[2:] == wanted.shape[2:]:
            prefix = 0 if getattr(student, "no_embed_class", False) else getattr(student, "num_prefix_tokens", 1)
            grid = module.patch_embed.grid_size
            return resample_abs_pos_embed(tensor, new_size=grid, num_prefix_tokens=prefix)
    raise ValueError(
        f"The weights are of another width: {name} has shape {list(tensor.shape)} in them and {list(wanted.shape)} in "
        "the student; take weights of a model whose copied blocks are as wide."
    )
