"""Small transformers, as students and as teachers in memory, and what is inside of them, taken out by hand."""

from __future__ import annotations

from typing import Any

import torch
from helpers import MemoryImages
from learner_cases import CLASSES, CPU
from timm.models.resnet import resnet18
from timm.models.swin_transformer import SwinTransformer
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from logitstore.online import OnlineOptions, OnlineTeacher, open_online
from students.minivit import Multiplexing, multiplex

SIZE = 32
IMAGES = MemoryImages(2)


def vit(width: int, *, depth: int = 6, seed: int = 0, **options: Any) -> VisionTransformer:
    """Patches of 8: a map of 4 x 4, and a class token unless ``options`` say otherwise."""
    values = {"patch_size": 8, "embed_dim": width, "depth": depth, "num_heads": width // 8, **options}
    return _made(VisionTransformer, seed, **values)


def swin(width: int, *, depths: tuple[int, ...] = (2, 4), seed: int = 0, **options: Any) -> SwinTransformer:
    """Maps of 8 x 8 and 4 x 4 in windows of 4: four of them, shifted in every second block, then a single one."""
    heads = tuple(width // 8 * 2**stage for stage in range(len(depths)))
    values = {"patch_size": 4, "window_size": 4, "embed_dim": width, "depths": depths, "num_heads": heads, **options}
    return _made(SwinTransformer, seed, **values)


def _made(kind: type[nn.Module], seed: int, **values: Any) -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = kind(**{"img_size": SIZE, "num_classes": CLASSES, "drop_path_rate": 0.0, **values})
        for parameter in model.parameters():  # larger than timm's, so that relations differ from one another
            nn.init.normal_(parameter, std=0.15)
        return model


def mini_swin(width: int) -> SwinTransformer:
    """All blocks of a stage share their weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return multiplex(swin(width), Multiplexing(share=0))


class _Fed(nn.Module):
    """A teacher with a mean and a deviation of its own, as a user's function may give one."""

    mean, std = (0.2, 0.3, 0.4), (0.5, 0.6, 0.7)

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner
        self.num_prefix_tokens = getattr(inner, "num_prefix_tokens", 0)
        self.seen: list[Tensor] = []

    def forward(self, images_BCHW: Tensor) -> Tensor:
        assert not self.training and not torch.is_grad_enabled()
        self.seen = [*self.seen[-1:], images_BCHW]
        logits_BC: Tensor = self.inner(images_BCHW)
        return logits_BC


def vit_teacher() -> nn.Module:
    """What ``--teacher-online online_cases:vit_teacher`` calls, as the functions that follow."""
    return _Fed(vit(32, seed=5))


def vit_teacher_without_token() -> nn.Module:
    return _Fed(vit(32, seed=6, class_token=False, global_pool="avg"))


def vit_teacher_of_coarse_patches() -> nn.Module:
    return vit(24, patch_size=16)


def patch16_teacher() -> nn.Module:
    """For timm's ``test_vit`` at 32 px."""
    return _Fed(vit(24, seed=5, patch_size=16))


def other_patch16_teacher() -> nn.Module:
    return _Fed(vit(24, seed=6, patch_size=16))


def patch16_teacher_of_digits() -> nn.Module:
    return vit(24, patch_size=16, num_classes=10)


def teacher_at_48() -> nn.Module:
    return _Fed(vit(24, patch_size=16, img_size=48))


def deep_vit_teacher() -> nn.Module:
    return vit(16, depth=8)


def swin_teacher() -> nn.Module:
    return _Fed(swin(24, seed=7))


def swin_teacher_of_odd_windows() -> nn.Module:
    return _Fed(swin(24, seed=7, window_size=(3, 5)))


def swin_teacher_of_coarse_patches() -> nn.Module:
    return swin(16, depths=(2, 2), patch_size=16)


def swin_teacher_of_long_windows() -> nn.Module:
    return swin(16, window_size=(8, 4))


def convolutional_teacher() -> nn.Module:
    return resnet18(num_classes=CLASSES)  # type: ignore[no-any-return]


def bare_teacher() -> Any:
    return lambda images_BCHW: images_BCHW.mean((2, 3))


def beside(student: nn.Module, teacher: str, **options: Any) -> OnlineTeacher:
    """A teacher of this module in memory beside a student."""
    asked = OnlineOptions(teacher=f"online_cases:{teacher}", **options)
    return open_online(asked, student, name="student", images=IMAGES, size=SIZE, device=CPU, dtype=torch.float32)


def layers_by_hand(model: nn.Module, images_BCHW: Tensor) -> list[tuple[list[Tensor], Tensor]]:
    """Of each layer the states [B, 3, N, C] of each window and the hidden states [B, N, C].

    By calling its parts one after the other; windows without padding.
    """
    found = []
    if isinstance(model, VisionTransformer):
        x = model._pos_embed(model.patch_embed(images_BCHW))
        for block in model.blocks:
            states = _states(block, block.norm1(x))
            x = block(x)
            found.append(([states], x))
        return found
    assert isinstance(model, SwinTransformer)
    x = model.patch_embed(images_BCHW)
    for stage in model.layers:
        x = stage.downsample(x)
        for block in stage.blocks:
            (height, width), (down, right) = block.window_size, block.shift_size
            rolled = torch.roll(block.norm1(x), [-down, -right], dims=(1, 2))
            windows = [
                _states(block, part.flatten(1, 2))
                for rows in rolled.split(height, dim=1)
                for part in rows.split(width, dim=2)
            ]
            x = block(x)
            found.append((windows, x.flatten(1, 2)))
    return found


def _states(block: nn.Module, tokens_BNC: Tensor) -> Tensor:
    return torch.stack(block.attn.qkv(tokens_BNC).chunk(3, dim=2), dim=1)
