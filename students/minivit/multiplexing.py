"""Weight multiplexing (MiniViT, section 3.1): consecutive blocks share weights, small transformations set them apart.

A block stays a block, under its own name, with norms, drop path and transformations of its own. The projections of
attention, its table of position biases and the MLP belong to the first block of each group; the others use them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from timm.layers import PatchEmbed
from timm.layers.attention import Attention
from timm.models.swin_transformer import SwinTransformer, SwinTransformerBlock
from timm.models.vision_transformer import Block, VisionTransformer
from torch import nn

from students.minivit.sharing import refer
from students.minivit.swin import MultiplexedSwinBlock, MultiplexedWindowAttention
from students.minivit.transformations import MlpTransform
from students.minivit.vit import GridPatchEmbed, MultiplexedAttention, MultiplexedBlock

_Transformer = TypeVar("_Transformer", SwinTransformer, VisionTransformer)


@dataclass(frozen=True, kw_only=True)
class Multiplexing:
    """What is shared, and what sets repeats apart. Table 1's rows: WS has neither transformation, WS+WT has them."""

    share: int = 2
    """Consecutive blocks of a stage that share weights; 0 for all of a stage, 1 for none. A stage that is no multiple
    ends with a smaller group. A ViT is one stage."""
    attn_transform: bool = True
    """Linear maps across heads before and after the softmax (eq. 6 and 7), a pair for each block."""
    mlp_transform: bool = True
    """A depthwise convolution before the MLP, one for each block."""
    equation_mlp: bool = False
    """The form of that convolution that the paper's equation 8 has, instead of the reference's."""
    reference_mask: bool = False
    """Swin: add the mask of shifted windows in blocks that do not shift, too. Weights of the reference want that."""
    rel_pos: bool = False
    """ViT: contextual relative positions on keys (iRPE), a table for each block."""

    def __post_init__(self) -> None:
        if self.share < 0:
            raise ValueError(f"share must be at least 0, got {self.share}: 0 shares all blocks of a stage.")


def multiplex(model: _Transformer, options: Multiplexing) -> _Transformer:
    """Share weights among a model's blocks, and add transformations with random initial weights.

    Weights that are shared are those of each group's first block. Norms, and all that is not shared, stay as they are.

    Args:
        model: timm's Swin, or a ViT or DeiT of plain blocks; it is changed, and returned.
        options: what to share and to add.

    Raises:
        ValueError: another architecture, or an option that it has no place for.
    """
    if isinstance(model, SwinTransformer):
        _multiplex_swin(model, options)
    elif isinstance(model, VisionTransformer):
        _multiplex_vit(model, options)
    else:
        raise ValueError(f"Weights can be multiplexed in Swin, ViT and DeiT, not in {type(model).__name__}.")
    return model


def groups(depth: int, share: int) -> Iterator[range]:
    """The blocks of a stage that share weights, by number."""
    size = share or depth
    for first in range(0, depth, size):
        yield range(first, min(first + size, depth))


def _multiplex_swin(model: SwinTransformer, options: Multiplexing) -> None:
    if options.rel_pos:
        raise ValueError("rel_pos is for ViT and DeiT: Swin has a table of relative positions.")
    for stage in model.layers:
        blocks: list[SwinTransformerBlock] = list(stage.blocks)
        _require(blocks, SwinTransformerBlock)
        for group in groups(len(blocks), options.share):
            first = blocks[group[0]]
            for number in group:
                block = blocks[number]
                if options.attn_transform:
                    shared = first.attn if block is not first else None
                    block.attn = MultiplexedWindowAttention.of(block.attn, shared)
                elif block is not first:
                    refer(block, "attn", first.attn)
                if block is not first:
                    refer(block, "mlp", first.mlp)
        for number, block in enumerate(blocks):
            stage.blocks[number] = MultiplexedSwinBlock.of(
                block, mlp_transform=_mlp_transform(block, options), reference_mask=options.reference_mask
            )


def _multiplex_vit(model: VisionTransformer, options: Multiplexing) -> None:
    if options.reference_mask:
        raise ValueError("reference_mask is for Swin: ViT and DeiT have no windows.")
    blocks: list[Block] = list(model.blocks)
    _require(blocks, Block)
    _require([block.attn for block in blocks], Attention)
    if options.rel_pos and model.num_prefix_tokens:
        raise ValueError("rel_pos is for models without class token: make this one with class_token=False.")
    if options.rel_pos or options.mlp_transform:
        _require([model.patch_drop], nn.Identity)
        _require([model.patch_embed], PatchEmbed)
        model.patch_embed = GridPatchEmbed.of(model.patch_embed)
    for group in groups(len(blocks), options.share):
        first = blocks[group[0]]
        for number in group:
            block = blocks[number]
            shared = first.attn if block is not first else None
            if options.attn_transform or options.rel_pos:
                block.attn = MultiplexedAttention.of(
                    block.attn,
                    shared,
                    transform=options.attn_transform,
                    patches=model.patch_embed if options.rel_pos else None,
                )
            elif shared is not None:
                refer(block, "attn", shared)
            if block is not first:
                refer(block, "mlp", first.mlp)
    for number, block in enumerate(blocks):
        if (transform := _mlp_transform(block, options)) is not None:
            model.blocks[number] = MultiplexedBlock.of(block, mlp_transform=transform, patches=model.patch_embed)


def _mlp_transform(block: SwinTransformerBlock | Block, options: Multiplexing) -> MlpTransform | None:
    if not options.mlp_transform:
        return None
    weight = block.norm1.weight
    like: dict[str, Any] = {"device": weight.device, "dtype": weight.dtype}
    return MlpTransform(len(weight), equation=options.equation_mlp, eps=block.norm2.eps, **like)


def _require(modules: Sequence[nn.Module], kind: type[nn.Module]) -> None:
    """Refuse modules of another class, also of a subclass: it may do other things."""
    for module in modules:
        if type(module) is not kind:
            raise ValueError(f"Weights of {kind.__name__} can be multiplexed, not those of {type(module).__name__}.")
