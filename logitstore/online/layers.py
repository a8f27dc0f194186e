"""The layers of a transformer: found by running it once, tapped while it runs.

A layer is a block that attends: a module called ``blocks.<i>``, as in timm's Swin, ViT and DeiT and in what is made of
these, in which a projection called ``qkv`` is at work. Blocks that share one projection are layers of their own: what
the projection gives belongs to the block that is running. What it gives is taken as it is, before anything normalises
queries and keys. Layers are numbered over all stages, from 0.

Shapes: B batch, W windows of an image, G = B W of a batch, N tokens of a window, C width.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product
from typing import Any

from timm.layers.attention import Attention
from timm.models.swin_transformer import WindowAttention
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from logitstore.errors import InputError

_BLOCK = re.compile(r"(?:^|\.)blocks\.\d+$")
_KNOWN = (Attention, WindowAttention)  # whose projection gives queries, keys and values one after the other, by heads


@dataclass(frozen=True, kw_only=True, eq=False)
class Layer:
    """A layer of a model that was run on images of one size."""

    number: int
    """From 0, over all stages."""
    stage: str
    """Name of the module that holds its block and its neighbours: ``layers.2.blocks``."""
    block: nn.Module
    windows: int
    """W; 1 where each token attends to all."""
    tokens: int
    """N of a window, prefix tokens included."""
    prefix: int
    """Tokens that are no part of the image, as the class token, before all others."""
    map_tokens: int
    """Tokens of the whole image behind the layer, without the prefix."""
    width: int
    """Of queries, keys and values, all heads together."""
    hidden_width: int
    """Of the hidden states behind the layer."""
    window: tuple[tuple[int, int], tuple[int, int]] | None
    """Size of the windows, and by how much they are shifted; None where there are none."""


@dataclass(kw_only=True, eq=False)
class Seen:
    """What a layer gave in a pass."""

    qkv_GNC: Tensor | None = None
    """Queries, keys and values of all heads one after the other, of three times the width."""
    hidden: Tensor | None = None
    """[B, N, C], or a map [B, H, W, C]."""

    def states(self, *, skip: int) -> Tensor:
        """Queries, keys and values [G, 3, N, C], without the first ``skip`` tokens."""
        assert self.qkv_GNC is not None
        groups, tokens, width = self.qkv_GNC.shape
        return self.qkv_GNC.view(groups, tokens, 3, width // 3)[:, skip:].transpose(1, 2)

    def windows(self, size: tuple[int, int]) -> Iterator[tuple[Tensor, float]]:
        """Queries, keys and values of windows [G, 3, N, C] without the padding that fills up those at the edge.

        Windows of one shape at a time, with their share of the map's tokens.
        """
        assert self.qkv_GNC is not None and self.hidden is not None
        batch, *map_size, _ = self.hidden.shape
        (tall, height), (wide, width) = (
            (-(-side // window), window) for side, window in zip(map_size, size, strict=True)
        )
        qkv = self.qkv_GNC.view(batch, tall, wide, height, width, 3, -1)
        for (rows, kept_rows), (columns, kept_columns) in product(*map(_runs, map_size, size)):
            part = qkv[:, rows, columns, :kept_rows, :kept_columns].movedim(5, 3)
            covered = part.shape[1] * part.shape[2] * kept_rows * kept_columns
            yield part.flatten(4, 5).flatten(0, 2), covered / (map_size[0] * map_size[1])

    def tokens(self, *, skip: int) -> Tensor:
        """Hidden states [B, N, C], without the first ``skip`` tokens."""
        assert self.hidden is not None
        return self.hidden.flatten(1, -2)[:, skip:]


class Tap:
    """Keeps what some blocks of a model give while it runs.

    Args:
        model: the model.
        blocks: of the model.
    """

    def __init__(self, model: nn.Module, blocks: Sequence[nn.Module]) -> None:
        self._blocks = tuple(dict.fromkeys(blocks))
        self._projections = _projections(model)

    @contextmanager
    def recording(self) -> Iterator[dict[nn.Module, Seen]]:
        """What each block gives in one pass within the context, graphs included, in the order in which they run."""
        seen: dict[nn.Module, Seen] = {}
        running: list[nn.Module] = []

        def enter(block: nn.Module, _inputs: object) -> None:
            running.append(block)
            seen[block] = Seen()

        def leave(block: nn.Module, _inputs: object, output: Any) -> None:
            running.remove(block)
            seen[block].hidden = output if isinstance(output, Tensor) else None

        def project(_projection: nn.Module, _inputs: object, output: Tensor) -> None:
            if running:
                seen[running[-1]].qkv_GNC = output

        handles: list[RemovableHandle] = []
        try:
            for block in self._blocks:
                handles += [block.register_forward_pre_hook(enter), block.register_forward_hook(leave)]
            handles += [projection.register_forward_hook(project) for projection in self._projections]
            yield seen
        finally:
            for handle in handles:
                handle.remove()


def find_layers(model: nn.Module, run: Callable[[], object], *, name: str, remedy: str) -> list[Layer]:
    """The layers of a model, in the order in which they run.

    Args:
        model: the model.
        run: runs it once on one image.
        name: what to call it.
        remedy: what to do about a model that has none, for the message.

    Raises:
        InputError: it has no layers, or some that give no tokens.
    """
    names = {block: block_name for block_name, block in model.named_modules() if _BLOCK.search(block_name)}
    with Tap(model, list(names)).recording() as seen:
        run()
    attending = [(block, one) for block, one in seen.items() if one.qkv_GNC is not None]
    if not attending:
        raise _without_layers(name, remedy)
    prefix = int(getattr(model, "num_prefix_tokens", 0))
    layers = []
    for number, (block, one) in enumerate(attending):
        if one.hidden is None or one.hidden.ndim not in (3, 4):
            raise InputError(f"The block {names[block]} of {name} gives no map of tokens: it cannot be compared.")
        layers.append(_layer(number, names[block], block, one, prefix))
    return layers


def require_attention(model: nn.Module, *, name: str, remedy: str) -> None:
    """Refuse a model that has no layers whatever images it sees, without running it.

    Args:
        model: the model; its weights are not read.
        name: what to call it.
        remedy: what to do about a model that has none, for the message.

    Raises:
        InputError: it has none.
    """
    if not _projections(model):
        raise _without_layers(name, remedy)


def _without_layers(name: str, remedy: str) -> InputError:
    return InputError(
        f"{name} has no attention layers that can be compared, as the blocks of timm's Swin, ViT and DeiT and of "
        f"MiniViT are: {remedy}"
    )


def _layer(number: int, name: str, block: nn.Module, seen: Seen, prefix: int) -> Layer:
    states, tokens = seen.states(skip=0), seen.tokens(skip=0)
    size = getattr(block, "window_size", None)
    return Layer(
        number=number,
        stage=name.rpartition(".")[0],
        block=block,
        windows=len(states),
        tokens=states.shape[2],
        prefix=prefix,
        map_tokens=tokens.shape[1] - prefix,
        width=states.shape[3],
        hidden_width=tokens.shape[2],
        window=None if size is None else (tuple(size), tuple(getattr(block, "shift_size", (0, 0)))),
    )


def _runs(side: int, window: int) -> list[tuple[slice, int]]:
    """Windows along a side of the map that are equally full, and how many tokens of the map each of them has."""
    whole, rest = divmod(side, window)
    runs = [(slice(0, whole), window), (slice(whole, whole + 1), rest)]
    return [(run, kept) for run, kept in runs if run.start < run.stop and kept]


def _projections(model: nn.Module) -> list[nn.Module]:
    """Each projection to queries, keys and values once, however many blocks use it."""
    return list(dict.fromkeys(module.qkv for module in model.modules() if isinstance(module, _KNOWN)))
