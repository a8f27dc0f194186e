"""The convolution before the MLP, in both its forms, for maps and for tokens: each block against plain float64."""

from __future__ import annotations

import pytest
import torch
from student_cases import images, make
from torch import Tensor, nn
from torch.nn.functional import layer_norm, unfold

SHAPES = {
    "mini_swin_t": {"embed_dim": 24, "num_heads": (1, 2, 3, 2)},
    "mini_deit_ti": {"embed_dim": 24, "num_heads": 2, "depth": 4, "mlp_transform": True},
}


def convolved(patches: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """A depthwise convolution of a map [rows, columns, channels], as a sum over what lies under the kernel."""
    rows, columns, channels = patches.shape
    under = unfold(patches.permute(2, 0, 1)[None], 7, padding=3).view(channels, 49, rows, columns)
    return torch.einsum("ckrs,ck->rsc", under, weight.reshape(channels, 49)) + bias


def plain_block(block: nn.Module, x: Tensor, equation: bool, grid: tuple[int, int]) -> Tensor:
    """What a block makes of [1, tokens, channels] after its attention."""
    w = dict(block.named_parameters())
    prefix = x.shape[1] - grid[0] * grid[1]

    def norm(of: Tensor, name: str) -> Tensor:
        eps = block.get_submodule("norm2").eps
        return layer_norm(of, of.shape[-1:], w[f"{name}.weight"], w[f"{name}.bias"], eps)

    def local(of: Tensor) -> Tensor:
        patches = of[0, prefix:].unflatten(0, grid)
        return convolved(patches, w["mlp_transform.conv.weight"], w["mlp_transform.conv.bias"]).flatten(0, 1)

    if equation:
        given = norm(x, "norm2")
        given = torch.cat([given[:, :prefix], local(given)[None]], dim=1)
    else:
        x = norm(x, "mlp_transform.norm")
        x = torch.cat([x[:, :prefix], x[:, prefix:] + local(x)[None]], dim=1)
        given = norm(x, "norm2")
    return x + block.mlp(given)


@pytest.mark.parametrize("equation", [False, True], ids=["the reference's form", "equation 8"])
@pytest.mark.parametrize(
    ("name", "plain", "grid"),
    [("mini_swin_t", False, (56, 56)), ("mini_deit_ti", False, (14, 14)), ("mini_deit_ti", True, (14, 14))],
    ids=["Swin", "DeiT", "DeiT with class token"],
)
def test_the_convolution_comes_before_the_mlp(name: str, plain: bool, grid: tuple[int, int], equation: bool) -> None:
    form = {"equation_mlp": equation, **({"plain": True} if plain else {})}
    model = make(name, seed=5, **SHAPES[name], **form).double()
    seen: dict[str, Tensor] = {}
    block = model.get_submodule("layers.0.blocks.1" if "swin" in name else "blocks.1")
    block.register_forward_hook(lambda _module, given, output: seen.update(given=given[0], output=output))
    attention = block.get_submodule("attn")
    with torch.no_grad():
        model(images(count=1).double())
        branch = block._attn(block.norm1(seen["given"])) if "swin" in name else attention(block.norm1(seen["given"]))
        after_attention = (seen["given"] + branch).reshape(1, -1, 24)
        expected = plain_block(block, after_attention, equation, grid)
    torch.testing.assert_close(seen["output"].reshape(1, -1, 24), expected, rtol=1e-9, atol=1e-9)
