"""Students as backbones: timm's feature extraction, at sizes that they were not made for."""

from __future__ import annotations

from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn

import students

HEIGHT, WIDTH = 256, 320
MODELS = tuple(dict.fromkeys(students.SHORT_NAMES.values()))
QUICK = ("swin_n", "tiny_vit_5m_224", "deit_tiny_patch16_224", "mini_swin_t", "mini_deit_ti")
SMALL: dict[str, dict[str, Any]] = {
    "swin_n": {"embed_dim": 24, "num_heads": (1, 2, 4, 8)},
    "mini_swin_t": {"embed_dim": 24, "num_heads": (1, 2, 4, 8), "depths": (2, 2, 2, 2)},
    "tiny_vit_5m_224": {"embed_dims": (16, 32, 48, 64), "num_heads": (1, 1, 2, 2)},
    "deit_tiny_patch16_224": {"embed_dim": 24, "num_heads": 2, "depth": 4},
    "mini_deit_ti": {"embed_dim": 24, "num_heads": 2, "depth": 4},
}


def any_size(name: str) -> dict[str, Any]:
    """What makes a model take images of other sizes than its own."""
    if "swin" in name:
        return {"strict_img_size": False}
    return {"dynamic_img_size": True} if "deit" in name else {}


def as_NCHW(name: str, features: list[Tensor]) -> list[Tensor]:
    return [feature.permute(0, 3, 1, 2) for feature in features] if "swin" in name else features


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in MODELS]
)
def test_every_student_gives_features_of_the_promised_shapes(name: str) -> None:
    with torch.device("meta"):
        model = timm.create_model(name, features_only=True, **any_size(name)).eval()
        size = timm.get_pretrained_cfg(name).input_size[1:]
        found = {size: model(torch.zeros(2, 3, *size)), (HEIGHT, WIDTH): model(torch.zeros(2, 3, HEIGHT, WIDTH))}
    channels, strides = model.feature_info.channels(), model.feature_info.reduction()
    assert strides == [16, 16, 16] if "deit" in name else [4, 8, 16, 32]
    for (height, width), features in found.items():
        shapes = [tuple(feature.shape) for feature in as_NCHW(name, features)]
        assert shapes == [(2, c, height // s, width // s) for c, s in zip(channels, strides, strict=True)]


def test_the_quick_ones_are_of_every_family() -> None:
    assert set(QUICK) <= set(MODELS)
    families = {name.removeprefix("mini_").partition("_")[0] for name in MODELS}
    assert families == {"swin", "tiny", "deit", "deit3"}, "a new family needs a quick one"


def random_model(name: str, **options: Any) -> nn.Module:
    """A model with noise on all its parameters: some of timm's begin at 0."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model: nn.Module = timm.create_model(name, num_classes=5, **SMALL[name], **options).eval()
        for parameter in model.parameters():
            parameter.data.add_(torch.randn_like(parameter), alpha=0.05)
    return model


@pytest.mark.parametrize("name", ["swin_n", "mini_swin_t", "deit_tiny_patch16_224", "mini_deit_ti"])
def test_another_size_gives_what_a_model_made_for_it_gives(name: str) -> None:
    """Position tables are of a window, embeddings are resampled: nothing else depends on the size.

    But a Swin's last stage, one window at its own size, stays without shifts at every other.
    """
    free = random_model(name, **any_size(name))
    fixed = random_model(name)
    windows = {"window_size": 7} if "swin" in name else {}
    fixed.set_input_size((HEIGHT, WIDTH), **windows)  # type: ignore[operator]
    images = torch.randn(1, 3, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        found, wanted = (model.forward_intermediates(images, intermediates_only=True) for model in (free, fixed))
    assert len(found) == len(wanted) and all(feature.std() > 1e-3 for feature in wanted)
    alike = slice(3 if "swin" in name else None)
    for one, other in zip(found[alike], wanted[alike], strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", ["swin_n", "tiny_vit_5m_224", "mini_swin_t"])
def test_features_are_those_on_the_way_to_the_logits(name: str) -> None:
    model, backbone = random_model(name, **any_size(name)), random_model(name, features_only=True, **any_size(name))
    assert backbone.feature_info.channels()[-1] == model.num_features  # type: ignore[operator,union-attr]
    images = torch.randn(1, 3, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        whole = {key: value for key, value in model.state_dict().items() if not key.startswith(("head", "norm."))}
        state = backbone.state_dict()
        renamed = {key: flat for key in whole if (flat := flattened(key)) in state}
        assert set(renamed.values()) == set(state)
        backbone.load_state_dict({flat: whole[key] for key, flat in renamed.items()})
        wanted = model.forward_intermediates(images, intermediates_only=True)
        found = as_NCHW(name, backbone(images))
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)


def flattened(key: str) -> str:
    """A parameter's name in timm's feature network, which unrolls the list of stages."""
    for stages in ("layers", "stages"):
        if key.startswith(f"{stages}."):
            return key.replace(".", "_", 1)
    return key
