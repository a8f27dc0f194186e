"""The weight transformations of MiniViT (section 3.1.1): what makes repeats of one block differ.

Shapes: B images or windows, H heads, N tokens, C channels; R rows and S columns of a map.
"""

from __future__ import annotations

from typing import Any

import torch
from timm.layers import trunc_normal_
from torch import Tensor, nn

KERNEL = 7
"""Side of the depthwise convolution: the window of the models of 224 px. The reference keeps it at 384 px."""


class HeadTransform(nn.Linear):
    """A linear map across the heads of attention logits (eq. 7) or attention weights (eq. 6).

    Weights start from a normal distribution of deviation 0.02 cut at 2, as in the reference, biases at 0.

    Args:
        heads: H.
        bias: whether each head gets a constant, too: Mini-Swin yes, Mini-DeiT no.
        like: ``device`` and ``dtype``.
    """

    def __init__(self, heads: int, *, bias: bool, **like: Any) -> None:
        super().__init__(heads, heads, bias=bias, **like)

    def reset_parameters(self) -> None:
        """Draw the initial weights."""
        trunc_normal_(self.weight, std=0.02)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def forward(self, maps_BHNN: Tensor) -> Tensor:
        """Each head's map as a sum of all heads' maps, of the same shape [B, H, N, N]."""
        # A product over [H, N*N] needs no copy with the heads last, which nn.Linear would.
        flat_BHM = maps_BHNN.flatten(2)
        weight_BHH = self.weight.expand(flat_BHM.shape[0], -1, -1)
        if self.bias is None:
            mixed_BHM = torch.bmm(weight_BHH, flat_BHM)
        else:
            mixed_BHM = torch.baddbmm(self.bias[:, None], weight_BHH, flat_BHM)
        return mixed_BHM.view(maps_BHNN.shape)

    def neutral(self) -> dict[str, Tensor]:
        """Parameters that change nothing, by name."""
        weight = torch.eye(self.in_features, dtype=self.weight.dtype)
        return {"weight": weight} if self.bias is None else {"weight": weight, "bias": torch.zeros(self.in_features)}


class MlpTransform(nn.Module):
    """A depthwise convolution over the map of tokens, before the MLP.

    Two forms. The reference's normalises the residual stream and adds the convolution to it, ``x = LN(x); x = x +
    conv(x)``, before the MLP's own norm. Equation 8 of the paper has neither that norm nor that sum: the convolution
    takes the place of the MLP's input, after the norm.

    Args:
        dim: C.
        equation: equation 8's form.
        eps: of the norm.
        like: ``device`` and ``dtype``.
    """

    def __init__(self, dim: int, *, equation: bool, eps: float, **like: Any) -> None:
        super().__init__()
        self.norm = None if equation else nn.LayerNorm(dim, eps=eps, **like)
        conv = nn.Conv2d(dim, dim, KERNEL, padding=KERNEL // 2, groups=dim, **like)
        # As its input lies in memory, so that its gradient lies as DistributedDataParallel expects.
        self.conv: nn.Conv2d = conv.to(memory_format=torch.channels_last)

    @property
    def beginning(self) -> str:
        """What ``neutral`` amounts to, as the end of a sentence."""
        if self.norm is None:
            return "they start as identities."
        return "they start at 0, behind a norm that is not in the weights either."

    def input_of_mlp(self, x: Tensor, norm2: nn.Module, grid: tuple[int, int] | None = None) -> tuple[Tensor, Tensor]:
        """The residual stream and the MLP's input.

        Args:
            x: the residual stream after attention: a map [B, R, S, C], or tokens [B, N, C] with the patches at the end.
            norm2: the norm before the MLP.
            grid: R and S, for tokens.
        """
        if self.norm is None:
            return x, self._local(norm2(x), grid)
        x = self._local(self.norm(x), grid)
        return x, norm2(x)

    def _local(self, x: Tensor, grid: tuple[int, int] | None) -> Tensor:
        if grid is not None:
            prefix = x.shape[1] - grid[0] * grid[1]
            patches = self._local(x[:, prefix:].unflatten(1, grid), None).flatten(1, 2)
            return torch.cat([x[:, :prefix], patches], dim=1) if prefix else patches
        convolved = self.conv(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return convolved if self.norm is None else x + convolved

    def neutral(self) -> dict[str, Tensor]:
        """Parameters, by name, that change nothing in equation 8's form, nothing but the norm in the reference's."""
        convolution = torch.zeros(self.conv.weight.shape)
        if self.norm is None:
            convolution[:, :, KERNEL // 2, KERNEL // 2] = 1
        parameters = {"conv.weight": convolution, "conv.bias": torch.zeros(self.conv.out_channels)}
        if self.norm is not None:
            width = self.conv.out_channels
            parameters |= {"norm.weight": torch.ones(width), "norm.bias": torch.zeros(width)}
        return parameters
