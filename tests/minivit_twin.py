"""Mini-Swin and Mini-DeiT as the reference has them: its names of tensors, one module a group, plain float64 loops."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import conv2d, gelu, layer_norm

State = dict[str, Tensor]

BUCKET = (0, 1, 2, 2, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3)
"""Where an offset of 0, 1, 2, … patches falls in iRPE's piecewise index with ratio 1.9."""


class Weights:
    """Draws tensors, and remembers them by name."""

    def __init__(self, seed: int) -> None:
        self.state: State = {}
        self._generator = torch.Generator().manual_seed(seed)

    def tensor(self, name: str, *shape: int, mean: float = 0.0, scale: float = 0.3) -> None:
        draw = torch.randn(*shape, generator=self._generator, dtype=torch.float64)
        self.state[name] = mean + scale * draw

    def linear(self, name: str, given: int, out: int, bias: bool = True) -> None:
        self.tensor(f"{name}.weight", out, given, scale=given**-0.5)
        if bias:
            self.tensor(f"{name}.bias", out)

    def norm(self, name: str, width: int) -> None:
        self.tensor(f"{name}.weight", width, mean=1.0)
        self.tensor(f"{name}.bias", width)


def swin_weights(
    *, width: int, repeats: tuple[tuple[int, ...], ...], heads: tuple[int, ...], classes: int, window: int = 7
) -> State:
    """A reference checkpoint of Mini-Swin; ``repeats`` are those of each group of each stage."""
    draw = Weights(1)
    draw.tensor("patch_embed.proj.weight", width, 3, 4, 4)
    draw.tensor("patch_embed.proj.bias", width)
    draw.norm("patch_embed.norm", width)
    for stage, groups in enumerate(repeats):
        wide = width * 2**stage
        for group, times in enumerate(groups):
            block = f"layers.{stage}.blocks.{group}"
            for repeat in range(times):
                for norm in ("norm1_list", "norm2_list", "local_norm_list"):
                    draw.norm(f"{block}.{norm}.{repeat}", wide)
                draw.linear(f"{block}.proj_l.{repeat}", heads[stage], heads[stage])
                draw.linear(f"{block}.proj_w.{repeat}", heads[stage], heads[stage])
                draw.tensor(f"{block}.local_conv_list.{repeat}.weight", wide, 1, 7, 7, scale=0.1)
                draw.tensor(f"{block}.local_conv_list.{repeat}.bias", wide)
            draw.tensor(f"{block}.attn.relative_position_bias_table", (2 * window - 1) ** 2, heads[stage])
            draw.tensor(f"{block}.attn.relative_position_index", window**2, window**2)  # computed, not used
            draw.tensor(f"{block}.attn_mask", 1, window**2, window**2)  # likewise
            draw.linear(f"{block}.attn.qkv", wide, 3 * wide)
            draw.linear(f"{block}.attn.proj", wide, wide)
            draw.linear(f"{block}.mlp.fc1", wide, 4 * wide)
            draw.linear(f"{block}.mlp.fc2", 4 * wide, wide)
        if stage + 1 < len(repeats):
            draw.norm(f"layers.{stage}.downsample.norm", 4 * wide)
            draw.linear(f"layers.{stage}.downsample.reduction", 4 * wide, 2 * wide, bias=False)
    draw.norm("norm", wide)
    draw.linear("head", wide, classes)
    draw.linear("fit_dense_C.0", width, width)  # of the reference's training with a teacher
    return draw.state


def deit_weights(*, width: int, depth: int, repeats: int, heads: int, patches: int, classes: int) -> State:
    """A reference checkpoint of Mini-DeiT."""
    draw = Weights(2)
    draw.tensor("patch_embed.proj.weight", width, 3, 16, 16, scale=0.05)
    draw.tensor("patch_embed.proj.bias", width)
    draw.tensor("pos_embed", 1, patches, width)
    for group in range(depth // repeats):
        block = f"blocks.{group}.block"
        for repeat in range(repeats):
            draw.norm(f"{block}.norm1.instances.{repeat}", width)
            draw.norm(f"{block}.norm2.instances.{repeat}", width)
            draw.tensor(f"{block}.attn.rpe_k.instances.{repeat}.lookup_table_weight", 1, width // heads, 49)
            draw.tensor(f"{block}.attn.conv_l.instances.{repeat}.weight", heads, heads, 1, 1)
            draw.tensor(f"{block}.attn.conv_w.instances.{repeat}.weight", heads, heads, 1, 1)
        draw.linear(f"{block}.attn.qkv", width, 3 * width)
        draw.linear(f"{block}.attn.proj", width, width)
        draw.linear(f"{block}.mlp.fc1", width, 4 * width)
        draw.linear(f"{block}.mlp.fc2", 4 * width, width)
    draw.norm("norm", width)
    draw.linear("head", width, classes)
    return draw.state


def mini_swin(
    w: State, x: Tensor, *, repeats: tuple[tuple[int, ...], ...], heads: tuple[int, ...], masked: bool, window: int = 7
) -> Tensor:
    """Logits; ``masked``: the reference's way, the mask of shifted windows also where nothing is shifted."""
    x = conv2d(x, w["patch_embed.proj.weight"], w["patch_embed.proj.bias"], stride=4).permute(0, 2, 3, 1)
    x = _norm(w, "patch_embed.norm", x)
    for stage, groups in enumerate(repeats):
        number = 0
        for group, times in enumerate(groups):
            for repeat in range(times):
                block = f"layers.{stage}.blocks.{group}"
                moved = number % 2 == 1 and x.shape[1] > window
                mask = x.shape[1] > window and (moved or masked)
                x = x + _windows(
                    w, block, repeat, _norm(w, f"{block}.norm1_list.{repeat}", x), heads[stage], moved, mask
                )
                x = _norm(w, f"{block}.local_norm_list.{repeat}", x)
                local = f"{block}.local_conv_list.{repeat}"
                planes = x.permute(0, 3, 1, 2)
                planes = conv2d(planes, w[f"{local}.weight"], w[f"{local}.bias"], padding=3, groups=planes.shape[1])
                x = x + planes.permute(0, 2, 3, 1)
                x = x + _mlp(w, f"{block}.mlp", _norm(w, f"{block}.norm2_list.{repeat}", x))
                number += 1
        if stage + 1 < len(repeats):
            corners = [x[:, row::2, column::2] for column in (0, 1) for row in (0, 1)]
            x = _norm(w, f"layers.{stage}.downsample.norm", torch.cat(corners, dim=-1))
            x = x @ w[f"layers.{stage}.downsample.reduction.weight"].T
    return _linear(w, "head", _norm(w, "norm", x).mean((1, 2)))


def _windows(
    w: State, block: str, repeat: int, x: Tensor, heads: int, moved: bool, mask: bool, window: int = 7
) -> Tensor:
    side, shift = x.shape[1], window // 2
    if moved:
        x = torch.roll(x, (-shift, -shift), (1, 2))
    out = torch.empty_like(x)
    table = w[f"{block}.attn.relative_position_bias_table"]
    at = [(i, j) for i in range(window) for j in range(window)]
    offsets = [[(a - c + window - 1) * (2 * window - 1) + b - d + window - 1 for c, d in at] for a, b in at]
    bias = table[torch.tensor(offsets)].permute(2, 0, 1)
    for top in range(0, side, window):
        for left in range(0, side, window):
            tokens = x[:, top : top + window, left : left + window].flatten(1, 2)
            query, key, value = _heads(w, f"{block}.attn.qkv", tokens, heads)
            logits = query @ key.mT + bias
            logits = _across_heads(logits, w[f"{block}.proj_l.{repeat}.weight"], w[f"{block}.proj_l.{repeat}.bias"])
            if mask:
                part = [
                    [sum(p + o >= side - cut for cut in (window, shift)) for p, o in ((i, top), (j, left))]
                    for i, j in at
                ]
                apart = torch.tensor([[a != b for b in part] for a in part])
                logits = logits - 100.0 * apart
            weights = logits.softmax(-1)
            weights = _across_heads(weights, w[f"{block}.proj_w.{repeat}.weight"], w[f"{block}.proj_w.{repeat}.bias"])
            joined = (weights @ value).transpose(1, 2).flatten(2)
            joined = _linear(w, f"{block}.attn.proj", joined)
            out[:, top : top + window, left : left + window] = joined.unflatten(1, (window, window))
    return torch.roll(out, (shift, shift), (1, 2)) if moved else out


def mini_deit(w: State, x: Tensor, *, depth: int, repeats: int, heads: int) -> Tensor:
    """Logits."""
    x = conv2d(x, w["patch_embed.proj.weight"], w["patch_embed.proj.bias"], stride=16)
    rows, columns = x.shape[2:]
    x = x.flatten(2).transpose(1, 2) + w["pos_embed"]
    kinds = torch.tensor(
        [
            [_kind(a - c) * 7 + _kind(b - d) for c in range(rows) for d in range(columns)]
            for a in range(rows)
            for b in range(columns)
        ]
    )
    for number in range(depth):
        block, repeat = f"blocks.{number // repeats}.block", number % repeats
        query, key, value = _heads(
            w, f"{block}.attn.qkv", _norm(w, f"{block}.norm1.instances.{repeat}", x, 1e-6), heads
        )
        vectors = w[f"{block}.attn.rpe_k.instances.{repeat}.lookup_table_weight"][0].T[kinds]
        logits = query @ key.mT + torch.einsum("bhnd,nmd->bhnm", query, vectors)
        logits = _across_heads(logits, w[f"{block}.attn.conv_l.instances.{repeat}.weight"][:, :, 0, 0])
        weights = _across_heads(logits.softmax(-1), w[f"{block}.attn.conv_w.instances.{repeat}.weight"][:, :, 0, 0])
        x = x + _linear(w, f"{block}.attn.proj", (weights @ value).transpose(1, 2).flatten(2))
        x = x + _mlp(w, f"{block}.mlp", _norm(w, f"{block}.norm2.instances.{repeat}", x, 1e-6))
    return _linear(w, "head", _norm(w, "norm", x, 1e-6).mean(1))


def _kind(offset: int) -> int:
    return int(math.copysign(BUCKET[abs(offset)], offset)) + 3


def _heads(w: State, name: str, tokens: Tensor, heads: int) -> list[Tensor]:
    """Scaled queries, keys and values of each head."""
    parts = [part.unflatten(2, (heads, -1)).transpose(1, 2) for part in _linear(w, name, tokens).chunk(3, -1)]
    return [parts[0] * parts[0].shape[-1] ** -0.5, *parts[1:]]


def _across_heads(maps: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    mixed = torch.einsum("kh,bhnm->bknm", weight, maps)
    return mixed if bias is None else mixed + bias[:, None, None]


def _linear(w: State, name: str, x: Tensor) -> Tensor:
    return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]


def _mlp(w: State, name: str, x: Tensor) -> Tensor:
    return _linear(w, f"{name}.fc2", gelu(_linear(w, f"{name}.fc1", x)))


def _norm(w: State, name: str, x: Tensor, eps: float = 1e-5) -> Tensor:
    return layer_norm(x, x.shape[-1:], w[f"{name}.weight"], w[f"{name}.bias"], eps)
