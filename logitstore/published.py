"""What papers print of models, with where it stands and at what setting. Nothing is computed here."""

from __future__ import annotations

from dataclasses import dataclass

from timm.models import get_pretrained_cfg


@dataclass(frozen=True, kw_only=True)
class Published:
    """What a paper prints of a model, for images of the model's own size."""

    source: str
    """Paper and table."""
    num_classes: int = 1000
    """C there."""
    parameters: float | None = None
    """Millions."""
    macs: float | None = None
    """Billions, for one image."""
    images_per_second: float | None = None
    """On the paper's hardware."""
    hardware: str | None = None
    """That hardware; None where no speed is given."""

    def __str__(self) -> str:
        parts = [
            f"{value:g} {unit}"
            for value, unit in ((self.parameters, "M"), (self.macs, "GMACs"), (self.images_per_second, "img/s"))
            if value is not None
        ]
        return f"{', '.join(parts)} ({self.source}{f'; {self.hardware}' if self.hardware else ''})"


def _framework(parameters: float, rate: float) -> Published:
    """A row of Table X."""
    return Published(
        source="Swin framework, Table X",
        num_classes=100,
        parameters=parameters,
        images_per_second=rate,
        hardware="hardware not given",
    )


def _tinyvit(macs: float, rate: float) -> Published:
    """A row of Table 4."""
    return Published(source="TinyViT, Table 4", macs=macs, images_per_second=rate, hardware="V100")


def _minivit(parameters: float, macs: float) -> Published:
    """A row of Table 4, with as many parameters as the authors' code makes: the table has whole millions."""
    return Published(source="MiniViT, Table 4; parameters of its code", parameters=parameters, macs=macs)


PUBLISHED: dict[str, tuple[Published, ...]] = {
    "swin_n": (_framework(20.5, 573.8),),
    "swin_m": (_framework(24.0, 494.5),),
    "swin_tiny_patch4_window7_224": (_framework(27.6, 422.5), _tinyvit(4.5, 1393)),
    "swin_small_patch4_window7_224": (_framework(48.9, 246.5), Published(source="Swin, Table 1", macs=8.7)),
    "swin_base_patch4_window7_224": (_framework(86.9, 165.3), Published(source="Swin, Table 1", macs=15.4)),
    "tiny_vit_5m_224": (_tinyvit(1.3, 3060),),
    "tiny_vit_11m_224": (_tinyvit(2.0, 2468),),
    "tiny_vit_21m_224": (_tinyvit(4.3, 1571),),
    "tiny_vit_21m_384": (_tinyvit(13.8, 394),),
    "tiny_vit_21m_512": (_tinyvit(27.0, 167),),
    "deit_small_patch16_224": (_tinyvit(4.6, 2276),),
    "mini_swin_t": (_minivit(12.001765, 4.6),),
    "mini_swin_s": (_minivit(26.463205, 8.9),),
    "mini_swin_b": (_minivit(46.444852, 15.7),),
    "mini_deit_ti": (_minivit(3.090304, 1.3),),
    "mini_deit_s": (_minivit(11.450824, 4.7),),
    "mini_deit_b": (_minivit(44.098408, 17.7),),
}
"""By timm's name without a tag. The Swin framework does not say what it measured on."""


def published_figures(model: str, *, num_classes: int, size: int) -> tuple[Published, ...] | None:
    """What papers print of a model that can stand beside its figures at this setting.

    Swin of 100 classes, which it is listed with, is compared with tables of 1000, too: of MACs and speed, of which the
    classifier is less than a thousandth.

    Args:
        model: timm's name, with or without a tag.
        num_classes: C.
        size: side of the images in pixels.

    Returns:
        The rows, perhaps none; None where they were made at another size or for other classes.
    """
    rows = PUBLISHED.get(model.partition(".")[0], ())
    if size != own_size(model):
        return None
    if num_classes == own_classes(model):
        return rows
    return tuple(row for row in rows if row.num_classes == num_classes) or None


def own_classes(model: str) -> int:
    """C as the papers give parameters."""
    return 100 if model.startswith("swin_") else 1000


def own_size(model: str) -> int:
    """Side of a model's images in pixels, by its name."""
    cfg = get_pretrained_cfg(model, allow_unregistered=True)
    return int(cfg.input_size[-1]) if cfg is not None else 224
