"""Blocks of a multiplexed ViT or DeiT: timm's, with transformations, relative positions and an earlier block's weights.

Relative positions are those of iRPE (Wu et al. 2021) as Mini-DeiT uses them: on keys, contextual, by the product
method, one table for all heads. They and the convolution before an MLP need the grid of patches, which the patch
embedding remembers.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import torch
from timm.layers import PatchEmbed
from timm.layers.attention import Attention, maybe_add_mask, resolve_self_attn_mask
from timm.models.vision_transformer import Block
from torch import Tensor, nn
from torch.nn import functional

from students.minivit.sharing import adopt, refer
from students.minivit.transformations import HeadTransform, MlpTransform

_RATIO = 1.9
_REACH = int(2 * _RATIO)
BUCKETS = (2 * _REACH + 1) ** 2
"""Kinds of offsets between two patches: 7 by row times 7 by column."""


@cache
def bucket(offset: int) -> int:
    """The piecewise index of an offset in patches, in -3..3 (iRPE, eq. 18, with alpha, beta, gamma 1.9, 3.8, 15.2).

    Near offsets have one of their own; further ones share them by the logarithm of their length.
    """
    alpha, beta, gamma = _RATIO, 2 * _RATIO, 8 * _RATIO
    if abs(offset) <= alpha:
        return offset
    far = alpha + math.log(abs(offset) / alpha) / math.log(gamma / alpha) * (beta - alpha)
    return int(math.copysign(min(round(far), beta), offset))


def buckets_of(grid: tuple[int, int], device: torch.device | None = None) -> Tensor:
    """Which row of a table of positions belongs to each pair of patches: [N, N], query first, in 0..48."""
    rows, columns = (
        torch.tensor([[bucket(i - j) + _REACH for j in range(side)] for i in range(side)], device=device)
        for side in grid
    )
    pairs = rows[:, None, :, None] * (2 * _REACH + 1) + columns[None, :, None, :]
    return pairs.reshape(grid[0] * grid[1], -1)


class GridPatchEmbed(PatchEmbed):
    """A patch embedding that remembers the grid of the images it saw, and which pairs of patches share a position."""

    seen: tuple[int, int]

    @classmethod
    def of(cls, embedding: PatchEmbed) -> GridPatchEmbed:
        """Take over a patch embedding."""
        new = adopt(cls, embedding)
        new._remember()
        return new

    def _remember(self) -> None:
        self.seen = self.grid_size
        self.register_buffer("_buckets", buckets_of(self.grid_size, self.proj.weight.device), persistent=False)

    def set_input_size(self, *args: Any, **options: Any) -> None:
        """As timm's: another size of images or patches."""
        super().set_input_size(*args, **options)
        self._remember()

    def forward(self, x: Tensor) -> Tensor:
        """Images to patches, as timm's."""
        if not self.strict_img_size:
            self.seen = self.dynamic_feat_size((x.shape[-2], x.shape[-1]))
        return super().forward(x)

    def buckets(self) -> Tensor:
        """``buckets_of`` the grid seen last."""
        if self.seen == self.grid_size:
            return self._buckets
        return buckets_of(self.seen, self.proj.weight.device)


class KeyPositions(nn.Module):
    """Relative positions on keys: a vector for each kind of offset, compared with the query.

    Args:
        head_dim: D.
        patches: the model's patch embedding, which knows the grid; not owned.
        like: ``device`` and ``dtype``.
    """

    patches: GridPatchEmbed

    def __init__(self, head_dim: int, patches: GridPatchEmbed, **like: Any) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.zeros(1, head_dim, BUCKETS, **like))
        self.__dict__["patches"] = patches

    def forward(self, query_BHND: Tensor) -> Tensor:
        """What to add to the logits [B, H, N, N], for scaled queries."""
        by_bucket_BHNK = query_BHND @ self.table[0]
        index_NN = self.patches.buckets()
        return by_bucket_BHNK.gather(-1, index_NN.expand(*by_bucket_BHNK.shape[:2], -1, -1))


class MultiplexedAttention(Attention):
    """timm's attention with relative positions, and with maps across heads before and after the softmax (eq. 6, 7)."""

    key_positions: KeyPositions | None
    pre_softmax: HeadTransform | None
    post_softmax: HeadTransform | None

    @classmethod
    def of(
        cls,
        attention: Attention,
        first: Attention | None,
        *,
        transform: bool,
        patches: GridPatchEmbed | None,
    ) -> MultiplexedAttention:
        """Take over an attention.

        Args:
            attention: is used up.
            first: the attention whose projections to use; None keeps its own.
            transform: map across heads.
            patches: the model's patch embedding, for relative positions; None for none.
        """
        new = adopt(cls, attention)
        like: dict[str, Any] = {"device": attention.qkv.weight.device, "dtype": attention.qkv.weight.dtype}
        new.key_positions = None if patches is None else KeyPositions(attention.head_dim, patches, **like)
        new.pre_softmax = HeadTransform(attention.num_heads, bias=False, **like) if transform else None
        new.post_softmax = HeadTransform(attention.num_heads, bias=False, **like) if transform else None
        if first is not None:
            refer(new, "qkv", first.qkv)
            refer(new, "proj", first.proj)
        return new

    def forward(self, x: Tensor, attn_mask: Tensor | None = None, is_causal: bool = False) -> Tensor:
        """Attention of tokens [B, N, C]; a mask is added after the first map across heads."""
        images, tokens, _ = x.shape
        qkv = self.qkv(x).reshape(images, tokens, 3, self.num_heads, self.head_dim).permute(2, 0, 3, 1, 4)
        query, key, value = qkv.unbind(0)
        query, key = self.q_norm(query), self.k_norm(key)
        scaled = query * self.scale
        positions = None if self.key_positions is None else self.key_positions(scaled)
        mask = resolve_self_attn_mask(tokens, scaled, attn_mask, is_causal)
        if self.pre_softmax is None or self.post_softmax is None:
            bias = positions if mask is None or positions is None else positions + mask
            drop = self.attn_drop.p if self.training else 0.0
            attended = functional.scaled_dot_product_attention(
                scaled, key, value, attn_mask=mask if bias is None else bias, dropout_p=drop, scale=1.0
            )
        else:
            logits = self.pre_softmax(maybe_add_mask(scaled @ key.transpose(-2, -1), positions))
            weights = self.post_softmax(maybe_add_mask(logits, mask).softmax(dim=-1))
            attended = self.attn_drop(weights) @ value
        x = self.norm(attended.transpose(1, 2).reshape(images, tokens, self.attn_dim))
        return self.proj_drop(self.proj(x))


class MultiplexedBlock(Block):
    """timm's block with a transformation before its MLP."""

    mlp_transform: MlpTransform
    patches: GridPatchEmbed

    @classmethod
    def of(cls, block: Block, *, mlp_transform: MlpTransform, patches: GridPatchEmbed) -> MultiplexedBlock:
        """Take over a block; the model's patch embedding knows the grid, and is not owned."""
        new = adopt(cls, block)
        new.mlp_transform = mlp_transform
        new.__dict__["patches"] = patches
        return new

    def forward(self, x: Tensor, attn_mask: Tensor | None = None, is_causal: bool = False) -> Tensor:
        """Tokens [B, N, C] to tokens. Those before the patches, a class token, are not convolved."""
        x = x + self.drop_path1(self.ls1(self.attn(self.norm1(x), attn_mask=attn_mask, is_causal=is_causal)))
        x, mlp_input = self.mlp_transform.input_of_mlp(x, self.norm2, self.patches.seen)
        return x + self.drop_path2(self.ls2(self.mlp(mlp_input)))
