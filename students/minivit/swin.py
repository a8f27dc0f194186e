"""Blocks of a multiplexed Swin: timm's, with transformations, and with weights that an earlier block may own."""

from __future__ import annotations

from typing import Any

import torch
from timm.models.swin_transformer import SwinTransformerBlock, WindowAttention, window_partition
from torch import Tensor

from students.minivit.sharing import adopt, refer
from students.minivit.transformations import HeadTransform, MlpTransform

_MASKED = -100.0  # as timm and the reference have it: large enough for softmax, and finite


class MultiplexedWindowAttention(WindowAttention):
    """Attention in windows with maps across heads before and after the softmax (eq. 6 and 7).

    The first map takes logits with their position bias and comes before the mask of shifted windows, as in the
    reference. The table of positions may be another attention's.
    """

    pre_softmax: HeadTransform
    post_softmax: HeadTransform
    table_of: WindowAttention | None

    @classmethod
    def of(cls, attention: WindowAttention, first: WindowAttention | None) -> MultiplexedWindowAttention:
        """Take over an attention; with ``first``, use that one's projections and table instead of its own."""
        new = adopt(cls, attention)
        like: dict[str, Any] = {"device": attention.qkv.weight.device, "dtype": attention.qkv.weight.dtype}
        new.pre_softmax = HeadTransform(attention.num_heads, bias=True, **like)
        new.post_softmax = HeadTransform(attention.num_heads, bias=True, **like)
        new.__dict__["table_of"] = first
        if first is not None:
            refer(new, "qkv", first.qkv)
            refer(new, "proj", first.proj)
            del new.relative_position_bias_table, new.relative_position_index
        return new

    def set_window_size(self, window_size: tuple[int, int]) -> None:
        """Change the window, and resize the table where it is this attention's own."""
        if self.table_of is None:
            super().set_window_size(window_size)
            return
        self.window_size = window_size
        self.window_area = window_size[0] * window_size[1]

    def _init_buffers(self) -> None:
        if self.table_of is None:
            super()._init_buffers()

    def _get_rel_pos_bias(self) -> Tensor:
        return super()._get_rel_pos_bias() if self.table_of is None else self.table_of._get_rel_pos_bias()

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Attention of windows [B, N, C]; ``mask`` [windows of an image, N, N] is added to the logits."""
        windows, area, _ = x.shape
        qkv = self.qkv(x).reshape(windows, area, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4)
        query_BHND, key_BHND, value_BHND = qkv.unbind(0)
        logits_BHNN = (query_BHND * self.scale) @ key_BHND.transpose(-2, -1) + self._get_rel_pos_bias()
        logits_BHNN = self.pre_softmax(logits_BHNN)
        if mask is not None:
            by_image = logits_BHNN.view(-1, len(mask), self.num_heads, area, area) + mask[:, None]
            logits_BHNN = by_image.view(logits_BHNN.shape)
        weights_BHNN = self.attn_drop(self.post_softmax(self.softmax(logits_BHNN)))
        x = (weights_BHNN @ value_BHND).transpose(1, 2).reshape(windows, area, -1)
        return self.proj_drop(self.proj(x))


class MultiplexedSwinBlock(SwinTransformerBlock):
    """A Swin block with a transformation before its MLP, and, on request, the reference's way with masks.

    The reference adds the mask of shifted windows in all blocks of a stage that is larger than a window, also in those
    that do not shift. Its weights were trained so.
    """

    mlp_transform: MlpTransform | None
    reference_mask: bool

    @classmethod
    def of(
        cls, block: SwinTransformerBlock, *, mlp_transform: MlpTransform | None, reference_mask: bool
    ) -> MultiplexedSwinBlock:
        """Take over a block."""
        new = adopt(cls, block)
        new.mlp_transform = mlp_transform
        new.reference_mask = reference_mask
        new._init_buffers()
        return new

    def get_attn_mask(
        self, x: Tensor | None = None, device: torch.device | None = None, dtype: torch.dtype | None = None
    ) -> Tensor | None:
        """The mask to add to logits [windows of an image, N, N]; None where there is none."""
        if any(self.shift_size) or not self.reference_mask:
            return super().get_attn_mask(x, device, dtype)
        half = tuple(side // 2 for side in self.window_size)
        shift = self._calc_window_shift(self.window_size, half)[1]
        if not any(shift):
            return None
        size = self.input_resolution if x is None else x.shape[1:3]
        like: dict[str, Any] = {"device": device, "dtype": dtype}
        if x is not None:
            like = {"device": x.device, "dtype": x.dtype}
        return _mask_of_shift(size, self.window_size, shift, **like)

    def forward(self, x: Tensor) -> Tensor:
        """A map of tokens [B, rows, columns, C] to one of the same shape."""
        if self.mlp_transform is None:
            return super().forward(x)
        x = x + self.drop_path1(self._attn(self.norm1(x)))
        x, mlp_input = self.mlp_transform.input_of_mlp(x, self.norm2)
        return x + self.drop_path2(self.mlp(mlp_input))


def _mask_of_shift(size: tuple[int, ...], window: tuple[int, int], shift: tuple[int, ...], **like: Any) -> Tensor:
    """Which tokens of a window would come from other sides of a shifted map: 0 or ``_MASKED`` [windows, N, N]."""
    ends = []
    for side, width, moved in zip(size, window, shift, strict=True):
        side = -(-side // width) * width
        place = torch.arange(side, device=like["device"])
        ends.append((place >= side - width).long() + (place >= side - moved).long())
    regions = (ends[0][:, None] * 3 + ends[1])[None, :, :, None]
    tokens = window_partition(regions, window).flatten(1)
    return (tokens[:, None] != tokens[:, :, None]).to(like["dtype"]) * _MASKED
