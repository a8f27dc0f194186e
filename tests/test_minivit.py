"""MiniViT: what is shared, what is each block's own, and what each switch changes."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from student_cases import count, images, make, swin, vit
from torch import Tensor, distributed, nn

from students.minivit import Multiplexing, multiplex
from students.minivit.starting import shared_names
from students.minivit.transformations import HeadTransform, MlpTransform

REFERENCE = {
    "mini_swin_t": 12_001_765,
    "mini_swin_s": 26_463_205,
    "mini_swin_b": 46_444_852,
    "mini_deit_ti": 3_090_304,
    "mini_deit_s": 11_450_824,
    "mini_deit_b": 44_098_408,
}
PAPERS = [("mini_swin_t", 2, 16), ("mini_swin_s", 0, 12), ("mini_swin_b", 0, 21), ("mini_deit_b", 0, 9)]
WITHOUT = {"attn_transform": False, "mlp_transform": False}
SMALL_SWIN = {"embed_dim": 24, "num_heads": (1, 2, 3, 2)}
SMALL_DEIT = {"embed_dim": 24, "num_heads": 2, "depth": 4}

RESIZING_WARNS = pytest.mark.filterwarnings(
    "ignore:torch.searchsorted... input value tensor is non-contiguous",
    "ignore:Using a non-tuple sequence for multidimensional indexing is deprecated",
)
"""timm's interpolation of tables of positions."""


def small(name: str = "mini_swin_t", **options: Any) -> nn.Module:
    shape: dict[str, Any] = SMALL_SWIN if "swin" in name else SMALL_DEIT
    return make(name, seed=5, **{**shape, **options})


def neutral(model: nn.Module) -> nn.Module:
    """The model with transformations that change nothing, or as little as their form can."""
    for module in model.modules():
        if isinstance(module, HeadTransform | MlpTransform):
            for name, tensor in module.neutral().items():
                module.get_parameter(name).data.copy_(tensor)
    return model


def parameters_of(name: str, **options: Any) -> int:
    with torch.device("meta"):
        return count(timm.create_model(name, **options))


@pytest.mark.parametrize(("name", "expected"), REFERENCE.items(), ids=REFERENCE)
def test_parameters_are_the_reference_s(name: str, expected: int) -> None:
    assert parameters_of(name) == expected


@pytest.mark.parametrize(("name", "share", "millions"), PAPERS)
def test_other_sharing_has_the_papers_parameters(name: str, share: int, millions: int) -> None:
    assert round(parameters_of(name, share=share) / 1e6) == millions


BASES: dict[str, Callable[[], nn.Module]] = {
    "Swin": lambda: swin(2, 2, 2, 2, seed=0),
    "DeiT": lambda: vit(3, seed=0),
    "norms in attention": lambda: vit(2, seed=0, qk_norm=True, scale_attn_norm=True, init_values=0.5),
}


@pytest.mark.parametrize("base_of", BASES.values(), ids=BASES)
@pytest.mark.parametrize(
    "options",
    [{"mlp_transform": False}, {"equation_mlp": True}, {"attn_transform": False, "equation_mlp": True}, WITHOUT],
    ids=["heads", "heads and equation 8", "equation 8", "none"],
)
def test_nothing_shared_and_neutral_is_the_base(base_of: Callable[[], nn.Module], options: dict[str, bool]) -> None:
    base = base_of()
    model = neutral(multiplex(copy.deepcopy(base), Multiplexing(share=1, **options)))
    with torch.no_grad():
        torch.testing.assert_close(model(images(count=1)), base(images(count=1)), rtol=1e-5, atol=1e-5)
    assert (count(model) == count(base)) is (options == WITHOUT)


@pytest.mark.parametrize("name", ["mini_swin_t", "mini_deit_ti"])
def test_a_shared_weight_gathers_the_gradients_of_its_repeats(name: str) -> None:
    shared = small(name).double()
    alone = small(name, share=1).double()
    weights = shared.state_dict()
    alone.load_state_dict(weights | {copied: weights[own] for copied, own in shared_names(shared).items()})
    given = images(count=1).double()
    outputs = []
    for model in (shared, alone):
        outputs.append(model(given))
        outputs[-1].square().sum().backward()
    torch.testing.assert_close(outputs[0], outputs[1])
    expected = {own: alone.get_parameter(own).grad for own, _ in shared.named_parameters()}
    for copied, own in shared_names(shared).items():
        expected[own] = expected[own] + alone.get_parameter(copied).grad
    for own, parameter in shared.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[own])
    repeats = len({copied.split(".attn.")[0] for copied in shared_names(shared) if ".attn.qkv" in copied})
    assert repeats == len(block_outputs(shared)) - (4 if "swin" in name else 2)


def test_initial_weights_are_drawn_as_in_the_reference() -> None:
    """Of maps across heads normal with 0.02, of convolutions torch's uniform ones, of positions 0."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        weights = timm.create_model("mini_swin_t").state_dict()
        tables = timm.create_model("mini_deit_ti").state_dict()
    maps = torch.cat([tensor.flatten() for name, tensor in weights.items() if name.endswith("softmax.weight")])
    assert abs(maps.mean()) < 0.002 and abs(maps.std() - 0.02) < 0.001
    assert not any(tensor.any() for name, tensor in weights.items() if name.endswith("softmax.bias"))
    kernels = torch.cat([tensor.flatten() for name, tensor in weights.items() if name.endswith("conv.weight")])
    assert abs(kernels.abs().max() - 1 / 7) < 1e-3 and abs(kernels.std() - 1 / 7 / 3**0.5) < 1e-3
    assert not any(tensor.any() for name, tensor in tables.items() if name.endswith("table"))


def block_outputs(model: nn.Module) -> dict[str, Tensor]:
    """What each block gives, by name."""
    found: dict[str, Tensor] = {}
    names = [name for name, _ in model.named_modules() if name.rpartition(".")[0].endswith("blocks")]

    def keep(name: str) -> Any:
        return lambda _module, _given, output: found.__setitem__(name, output)

    hooks = [model.get_submodule(name).register_forward_hook(keep(name)) for name in names]
    with torch.no_grad():
        model(images(count=1).to(next(model.parameters()).dtype))
    for hook in hooks:
        hook.remove()
    return found


@pytest.mark.parametrize("name", ["mini_swin_t", "mini_deit_ti"])
def test_hooks_see_each_repeat(name: str) -> None:
    model = small(name)
    blocks = block_outputs(model)
    assert len({float(output.sum()) for output in blocks.values()}) == len(blocks) == (12 if "swin" in name else 4)
    calls: list[Tensor] = []
    for qkv in {model.get_submodule(f"{block}.attn.qkv") for block in blocks}:
        qkv.register_forward_hook(lambda _module, _given, output: calls.append(output))
    with torch.no_grad():
        model(images(count=1))
    assert len(calls) == len(blocks)


def test_each_switch_adds_what_it_names() -> None:
    def tensors(**options: Any) -> set[str]:
        return set(small(**{**WITHOUT, **options}).state_dict())

    plain = tensors()
    blocks = [f"layers.{stage}.blocks.{number}" for stage, depth in enumerate((2, 2, 6, 2)) for number in range(depth)]
    ends = ("weight", "bias")
    heads = {f"{at}.attn.{side}_softmax.{end}" for at in blocks for side in ("pre", "post") for end in ends}
    local = {f"{at}.mlp_transform.conv.{end}" for at in blocks for end in ends}
    norms = {f"{at}.mlp_transform.norm.{end}" for at in blocks for end in ends}
    assert tensors(attn_transform=True) == plain | heads
    assert tensors(mlp_transform=True) == plain | local | norms
    assert tensors(mlp_transform=True, equation_mlp=True) == plain | local
    assert tensors(attn_transform=True, mlp_transform=True) == plain | heads | local | norms
    assert tensors(reference_mask=True) == plain
    base = set(swin(2, 2, 6, 2, seed=0).state_dict())
    assert tensors(share=1) == base
    first = {f"layers.{stage}.blocks.0" for stage in range(4)}
    others = {name for name in base if ".attn." in name or ".mlp." in name}
    assert plain == base - {name for name in others if ".".join(name.split(".")[:4]) not in first}


def test_deit_s_positions_and_class_token() -> None:
    usual, plain = small("mini_deit_ti"), small("mini_deit_ti", plain=True)
    tables = {f"blocks.{number}.attn.key_positions.table" for number in range(4)}
    assert usual.state_dict().keys() - plain.state_dict().keys() == tables
    assert plain.state_dict().keys() - usual.state_dict().keys() == {"cls_token"}
    assert (usual.pos_embed.shape[1], plain.pos_embed.shape[1]) == (196, 197)
    without = small("mini_deit_ti", rel_pos=False, attn_transform=False)
    for number in range(4):
        usual.get_parameter(f"blocks.{number}.attn.key_positions.table").data.zero_()
    usual.load_state_dict(without.state_dict(), strict=False)
    with torch.no_grad():
        torch.testing.assert_close(neutral(usual)(images(count=1)), without(images(count=1)), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["mini_swin_t", "mini_deit_ti"])
def test_a_copy_is_a_model_of_its_own(name: str) -> None:
    model = small(name)
    twin = copy.deepcopy(model)
    with torch.no_grad():
        before = model(images(count=1))
        for parameter in twin.parameters():
            parameter.mul_(1.5)
        assert torch.equal(model(images(count=1)), before)
        changed = twin(images(count=1))
        model.load_state_dict(twin.state_dict())
        assert torch.equal(model(images(count=1)), changed)


def test_sizes_that_were_not_announced() -> None:
    given = torch.randn(1, 3, 256, 320, generator=torch.Generator().manual_seed(0))
    base = swin(2, 2, 2, 2, seed=0, strict_img_size=False)
    model = neutral(multiplex(copy.deepcopy(base), Multiplexing(share=1, equation_mlp=True)))
    free, fitted = (small("mini_deit_ti", mlp_transform=True, dynamic_img_size=dynamic) for dynamic in (True, False))
    fitted.set_input_size(img_size=(256, 320))
    with torch.no_grad():
        torch.testing.assert_close(model(given), base(given), rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(free(given), fitted(given), rtol=1e-4, atol=1e-5)
        assert free(images(count=1)).shape == (1, 10)


@RESIZING_WARNS
@pytest.mark.parametrize("name", ["mini_swin_t", "mini_deit_ti"])
def test_windows_and_positions_follow_another_size(name: str) -> None:
    larger = {"img_size": 384, **({"window_size": 12} if "swin" in name else {})}
    resized, made = small(name), small(name, **larger)
    resized.set_input_size(**larger)
    assert {key: tensor.shape for key, tensor in resized.state_dict().items()} == {
        key: tensor.shape for key, tensor in made.state_dict().items()
    }
    made.load_state_dict(resized.state_dict())
    with torch.no_grad():
        assert torch.equal(made(images(384, count=1)), resized(images(384, count=1)))


def test_features_come_from_each_stage_and_block() -> None:
    stages = small("mini_swin_t", features_only=True, strict_img_size=False)
    given = torch.randn(1, 3, 256, 320)
    shapes = [(64, 80, 24), (32, 40, 48), (16, 20, 96), (8, 10, 192)]  # channels last, as timm's Swin
    assert [tuple(each.shape[1:]) for each in stages(given)] == shapes
    last = small("mini_deit_ti", features_only=True, dynamic_img_size=True, out_indices=(1, 3))
    assert [tuple(each.shape[1:]) for each in last(given)] == [(24, 16, 20)] * 2
    tokens, maps = small("mini_deit_ti").forward_intermediates(images(count=1))
    assert len(maps) == 4 and tokens.shape == (1, 196, 24)


@pytest.mark.parametrize("name", ["mini_swin_t", "mini_deit_ti"])
def test_data_parallel_training_has_the_same_gradients(name: str, tmp_path: Path) -> None:
    alone = small(name)
    given = images(count=1)
    alone(given).square().sum().backward()
    distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/ranks", rank=0, world_size=1)
    try:
        model = nn.parallel.DistributedDataParallel(small(name))
        for _ in range(2):
            model.zero_grad()
            model(given).square().sum().backward()
    finally:
        distributed.destroy_process_group()
    for expected, parameter in zip(alone.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(parameter.grad, expected.grad, rtol=1e-4, atol=1e-4)


def test_lower_precision_by_autocast() -> None:
    for name in ("mini_swin_t", "mini_deit_ti"):
        model = small(name)
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            rough = model(images(count=1)).float()
        with torch.no_grad():
            assert (rough - model(images(count=1))).abs().max() < 0.1 * rough.abs().max()


@pytest.mark.parametrize(
    ("model", "options", "words"),
    [
        (lambda: timm.create_model("resnet18"), {}, "not in ResNet"),
        (lambda: small(), {}, "not those of MultiplexedSwinBlock"),
        (lambda: swin(2, 2, 2, 2, seed=0), {"rel_pos": True}, "rel_pos is for ViT and DeiT"),
        (lambda: vit(2, seed=0), {"reference_mask": True}, "reference_mask is for Swin"),
        (lambda: vit(2, seed=0), {"rel_pos": True}, "without class token"),
        (lambda: make("vit_tiny_r_s16_p8_224", seed=0, depth=1), {}, "not those of HybridEmbed"),
        (lambda: vit(2, seed=0, patch_drop_rate=0.5), {}, "not those of PatchDropout"),
        (lambda: make("beit_base_patch16_224", seed=0, depth=1), {}, "not in Beit"),
        (lambda: vit(2, seed=0, qk_norm=True, attn_layer="diff"), {}, "not those of DiffAttention"),
    ],
)
def test_what_cannot_be_multiplexed_is_named(model: Any, options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        multiplex(model(), Multiplexing(**options))


def test_negative_sharing_is_refused() -> None:
    with pytest.raises(ValueError, match="share must be at least 0, got -1"):
        timm.create_model("mini_swin_t", share=-1)
