"""How many images a model classified correctly, and how sure that number is."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from math import sqrt
from typing import Any

Z_95 = 1.959963984540054
"""Two-sided 95% of the normal distribution."""


@dataclass(frozen=True, kw_only=True)
class Accuracy:
    """How many images of a set were classified correctly."""

    images: int
    """Images looked at."""
    top1: int
    """Of these, with the right class first."""
    top5: int
    """Of these, with the right class among the first five."""
    split: str = "val"
    """The split of the data set."""

    def to_dict(self) -> dict[str, Any]:
        """Counts, shares and their 95% intervals, as cards and reports hold them."""
        return {
            **asdict(self),
            "top1_share": self.top1 / self.images,
            "top5_share": self.top5 / self.images,
            "top1_interval": list(wilson_interval(self.top1, self.images)),
            "top5_interval": list(wilson_interval(self.top5, self.images)),
        }

    def __str__(self) -> str:
        low, high = wilson_interval(self.top1, self.images)
        return (
            f"{100 * self.top1 / self.images:.1f}% top-1 ({100 * low:.1f} to {100 * high:.1f} at 95%), "
            f"{100 * self.top5 / self.images:.1f}% top-5, {self.images} images ({self.split})"
        )


def wilson_interval(correct: int, images: int) -> tuple[float, float]:
    """The 95% interval of a share by Wilson's score (1927); ``images`` at least 1."""
    z = Z_95
    share, spread = correct / images, z * z / images
    centre = (share + spread / 2) / (1 + spread)
    half = z * sqrt(share * (1 - share) / images + spread / (4 * images)) / (1 + spread)
    return max(0.0, centre - half), min(1.0, centre + half)
