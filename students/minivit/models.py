"""The models of the MiniViT paper, registered with timm: Mini-Swin and Mini-DeiT.

Their arguments beyond timm's are those of ``Multiplexing``; Mini-DeiT has ``plain``, too.
"""

from __future__ import annotations

from dataclasses import fields
from functools import partial
from typing import Any, TypeVar

from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models.swin_transformer import SwinTransformer
from timm.models.vision_transformer import VisionTransformer

from students.minivit.multiplexing import Multiplexing, multiplex

_Transformer = TypeVar("_Transformer", SwinTransformer, VisionTransformer)
_OPTIONS = {field.name for field in fields(Multiplexing)}


def _cfg(size: int, **others: Any) -> dict[str, Any]:
    return {
        "num_classes": 1000,
        "input_size": (3, size, size),
        "pool_size": None,
        "crop_pct": 0.9 if size == 224 else 1.0,
        "interpolation": "bicubic",
        "fixed_input_size": True,
        "mean": IMAGENET_DEFAULT_MEAN,
        "std": IMAGENET_DEFAULT_STD,
        "first_conv": "patch_embed.proj",
        "license": "mit",
        **others,
    }


def _swin_cfg(size: int) -> dict[str, Any]:
    return _cfg(size, pool_size=(size // 32, size // 32), classifier="head.fc")


def _deit_cfg(size: int) -> dict[str, Any]:
    return _cfg(size, classifier="head")


default_cfgs = generate_default_cfgs(
    {
        "mini_swin_t.untrained": _swin_cfg(224),
        "mini_swin_s.untrained": _swin_cfg(224),
        "mini_swin_b.untrained": _swin_cfg(224),
        "mini_swin_b_384.untrained": _swin_cfg(384),
        "mini_deit_ti.untrained": _deit_cfg(224),
        "mini_deit_s.untrained": _deit_cfg(224),
        "mini_deit_b.untrained": _deit_cfg(224),
        "mini_deit_b_384.untrained": _deit_cfg(384),
    }
)


def _multiplexed(kind: type[_Transformer], **arguments: Any) -> _Transformer:
    """A model of timm's class, with the options among the arguments applied."""
    options = {name: arguments.pop(name) for name in _OPTIONS & arguments.keys()}
    return multiplex(kind(**arguments), Multiplexing(**options))


def _swin(variant: str, pretrained: bool, options: dict[str, Any], **arguments: Any) -> SwinTransformer:
    arguments = {"patch_size": 4, "window_size": 7, **arguments, **options}
    out_indices = arguments.pop("out_indices", tuple(range(len(arguments["depths"]))))
    return build_model_with_cfg(
        partial(_multiplexed, SwinTransformer),
        variant,
        pretrained,
        feature_cfg={"flatten_sequential": True, "out_indices": out_indices},
        **arguments,
    )


def _deit(variant: str, pretrained: bool, options: dict[str, Any], **arguments: Any) -> VisionTransformer:
    plain = options.pop("plain", False)
    token = {"class_token": plain, "global_pool": "token" if plain else "avg", "fc_norm": False, "rel_pos": not plain}
    arguments = {"patch_size": 16, "depth": 12, "mlp_transform": False, **token, **arguments, **options}
    return build_model_with_cfg(
        partial(_multiplexed, VisionTransformer),
        variant,
        pretrained,
        feature_cfg={"out_indices": arguments.pop("out_indices", 3), "feature_cls": "getter"},
        **arguments,
    )


@register_model
def mini_swin_t(pretrained: bool = False, **options: Any) -> SwinTransformer:
    """Mini-Swin-T: Swin-T with all blocks of a stage shared; 12,001,765 parameters with 1000 classes."""
    shape = {"embed_dim": 96, "depths": (2, 2, 6, 2), "num_heads": (3, 6, 12, 24)}
    return _swin("mini_swin_t", pretrained, options, share=0, **shape)


@register_model
def mini_swin_s(pretrained: bool = False, **options: Any) -> SwinTransformer:
    """Mini-Swin-S: Swin-S with every two blocks shared; 26,463,205 parameters with 1000 classes."""
    shape = {"embed_dim": 96, "depths": (2, 2, 18, 2), "num_heads": (3, 6, 12, 24)}
    return _swin("mini_swin_s", pretrained, options, **shape)


@register_model
def mini_swin_b(pretrained: bool = False, **options: Any) -> SwinTransformer:
    """Mini-Swin-B: Swin-B with every two blocks shared; 46,444,852 parameters with 1000 classes."""
    shape = {"embed_dim": 128, "depths": (2, 2, 18, 2), "num_heads": (4, 8, 16, 32)}
    return _swin("mini_swin_b", pretrained, options, **shape)


@register_model
def mini_swin_b_384(pretrained: bool = False, **options: Any) -> SwinTransformer:
    """Mini-Swin-B for images of 384 px, with windows of 12."""
    shape = {"embed_dim": 128, "depths": (2, 2, 18, 2), "num_heads": (4, 8, 16, 32), "window_size": 12}
    return _swin("mini_swin_b_384", pretrained, options, **shape)


@register_model
def mini_deit_ti(pretrained: bool = False, **options: Any) -> VisionTransformer:
    """Mini-DeiT-Ti: every two blocks shared; 3,090,304 parameters with 1000 classes.

    Without class token, with relative positions; ``plain=True`` is DeiT's own form, as in the paper's supplement.
    """
    return _deit("mini_deit_ti", pretrained, options, embed_dim=192, num_heads=3)


@register_model
def mini_deit_s(pretrained: bool = False, **options: Any) -> VisionTransformer:
    """Mini-DeiT-S, as Mini-DeiT-Ti; 11,450,824 parameters with 1000 classes."""
    return _deit("mini_deit_s", pretrained, options, embed_dim=384, num_heads=6)


@register_model
def mini_deit_b(pretrained: bool = False, **options: Any) -> VisionTransformer:
    """Mini-DeiT-B, as Mini-DeiT-Ti; 44,098,408 parameters with 1000 classes."""
    return _deit("mini_deit_b", pretrained, options, embed_dim=768, num_heads=12)


@register_model
def mini_deit_b_384(pretrained: bool = False, **options: Any) -> VisionTransformer:
    """Mini-DeiT-B for images of 384 px."""
    return _deit("mini_deit_b_384", pretrained, options, embed_dim=768, num_heads=12)
