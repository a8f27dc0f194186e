"""What an evaluation found, as JSON and as readable lines."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from logitstore.accuracy import Accuracy, wilson_interval
from logitstore.evaluate.compare import Agreement, Gains


@dataclass(frozen=True, kw_only=True)
class EvalResult:
    """What was measured."""

    checkpoint: str
    """The file of weights."""
    model: str
    """timm's name."""
    data: str
    """The data set's name."""
    split: str
    """Its split."""
    size: int
    """Side of the views in pixels."""
    num_samples: int
    """Images looked at."""
    matched: str | None
    """How labels became the model's class numbers: by ``name``; ``number``: they are numbers, or folders named by
    them; ``order``: the model has no class names, so the data set's classes count in their order; None: no labels."""
    accuracy: Accuracy | None
    """On the data set's own labels; None where it has none."""
    real: Accuracy | None
    """On ImageNet's ReaL labels, of the images that have any; None where it was not asked for."""
    agreement: Agreement | None
    """With the teacher; None where there was none."""
    gains: Gains | None
    """Over the baseline; None where there was none."""

    @property
    def top1(self) -> float | None:
        """Share of images with the right class first, in [0, 1]."""
        return None if self.accuracy is None else self.accuracy.top1 / self.accuracy.images

    @property
    def top5(self) -> float | None:
        """Share of images with the right class among the first five."""
        return None if self.accuracy is None else self.accuracy.top5 / self.accuracy.images

    @property
    def top1_interval(self) -> tuple[float, float] | None:
        """95% Wilson interval of ``top1``."""
        return None if self.accuracy is None else wilson_interval(self.accuracy.top1, self.accuracy.images)

    @property
    def top5_interval(self) -> tuple[float, float] | None:
        """95% Wilson interval of ``top5``."""
        return None if self.accuracy is None else wilson_interval(self.accuracy.top5, self.accuracy.images)

    def to_dict(self) -> dict[str, Any]:
        """As JSON takes it: counts, shares, intervals; all classes of the comparison with a baseline."""
        return {
            **{name: getattr(self, name) for name in ("checkpoint", "model", "data", "split", "size", "num_samples")},
            "matched": self.matched,
            **_shares(self.accuracy),
            "real": None if self.real is None else {"images": self.real.images, **_shares(self.real)},
            "agreement": None if self.agreement is None else self.agreement.to_dict(),
            "gains": None if self.gains is None else self.gains.to_dict(),
        }

    def lines(self) -> dict[str, str]:
        """As text: one entry per line, accuracies in percent."""
        lines = {
            "checkpoint": f"{self.checkpoint} ({self.model}, {self.size} px)",
            "data": f"{self.data} ({self.split}), {self.num_samples} images"
            + (f", classes matched by {self.matched}" if self.matched else ""),
        }
        for prefix, accuracy in (("", self.accuracy), ("ReaL ", self.real)):
            if accuracy is not None:
                lines[f"{prefix}top-1"] = _percent(accuracy.top1, accuracy.images)
                lines[f"{prefix}top-5"] = _percent(accuracy.top5, accuracy.images)
        if self.agreement is not None:
            found = self.agreement
            lines["teacher"] = f"{found.teacher} ({found.model}, {found.size} px), {found.num_classes} common classes"
            lines["same top-1"] = _percent(found.same_top1, found.images)
            lines["KL"] = f"{found.kl:.4f} nat, mean KL(teacher || checkpoint)"
        return lines if self.gains is None else lines | _gain_lines(self.gains)


def _shares(accuracy: Accuracy | None) -> dict[str, Any]:
    shares: dict[str, Any] = {}
    for name in ("top1", "top5"):
        shares |= {name: None, f"{name}_count": None, f"{name}_interval": None}
        if accuracy is not None:
            correct, images = getattr(accuracy, name), accuracy.images
            shares[name], shares[f"{name}_count"] = correct / images, correct
            shares[f"{name}_interval"] = list(wilson_interval(correct, images))
    return shares


def _percent(correct: int, images: int) -> str:
    low, high = wilson_interval(correct, images)
    return f"{100 * correct / images:.2f}% ({100 * low:.2f} to {100 * high:.2f} at 95%), {correct} of {images}"


def _gain_lines(gains: Gains) -> dict[str, str]:
    low, high = gains.interval
    return {
        "baseline": f"{gains.baseline} ({gains.model}, {gains.size} px)",
        "baseline top-1": _percent(gains.baseline_correct, gains.images),
        "difference": f"{100 * gains.difference:+.2f} points ({100 * low:+.2f} to {100 * high:+.2f} at 95%), "
        f"{gains.gained} images gained, {gains.lost} lost",
        "most gained": ", ".join(map(str, gains.largest())) or "none",
        "most lost": ", ".join(map(str, gains.lowest())) or "none",
    }
