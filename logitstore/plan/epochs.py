"""What storing epochs costs, and what storing fewer of them saves: a training run may go through a store many times."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from logitstore.plan.weigh import Weight

_PARTS = (8, 4, 3, 2, 1)
SAFE_REPEATS, SAFE_EPOCHS = 3, 50
"""How often each view may be seen without harm, and of how many stored epochs, as far as that was measured."""
EVIDENCE = (
    "50 stored views of each image, seen 3 times each in 150 epochs, did as well as 400: 80.1% against 80.0% on "
    "ImageNet (Faghri et al., 2023, Dataset Reinforcement)"
)


@dataclass(frozen=True, kw_only=True)
class Storing:
    """A store of some epochs, for a longer training run that goes round in it."""

    epochs: int
    """Epochs stored."""
    times_seen: float
    """How often training sees each view."""
    hours: float
    """Of the teacher, at the rate that was measured, on one machine like this."""
    gigabytes: float
    """Size of the store, 10^9 bytes."""
    saved: float
    """Share of teacher time and bytes that is saved, against storing every epoch of training."""
    measured: bool
    """Whether somebody measured that so many views, seen so often, cost nothing; see ``EVIDENCE``."""

    def to_dict(self) -> dict[str, Any]:
        """As JSON takes it."""
        return asdict(self)


def storings(training_epochs: int, weight: Weight, views_per_second: float) -> list[Storing]:
    """One epoch, an eighth, a quarter, a third, half of the training run's epochs, and all of them.

    Args:
        training_epochs: E.
        weight: of the records.
        views_per_second: of a dump.
    """
    counts = sorted({1, *(-(-training_epochs // part) for part in _PARTS)})
    return [
        Storing(
            epochs=epochs,
            times_seen=training_epochs / epochs,
            hours=epochs * weight.num_samples / views_per_second / 3600,
            gigabytes=weight.total(epochs) / 1e9,
            saved=1 - epochs / training_epochs,
            measured=epochs >= SAFE_EPOCHS and training_epochs <= SAFE_REPEATS * epochs,
        )
        for epochs in counts
    ]


def enough_epochs(training_epochs: int) -> int:
    """The fewest epochs to store for which the evidence speaks."""
    return -(-training_epochs // SAFE_REPEATS)
