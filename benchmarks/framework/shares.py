"""Shares of right answers over seeds, as cells of a table.

The interval is Wilson's at the mean of the seeds, for one set of test images: it says what other test images could
give. What other seeds could give, the seeds beside it show.
"""

from __future__ import annotations

from collections.abc import Mapping

from benchmarks.common import Row as Cells
from benchmarks.framework.steps import Result
from logitstore.accuracy import wilson_interval


def top1_of(result: Result) -> tuple[float, int]:
    """Share of right answers and number of images, of what ``train`` or ``eval`` printed."""
    if "accuracy" in result:
        return result["accuracy"]["top1_share"], result["accuracy"]["images"]
    return result["top1"], result["num_samples"]


def percent_cells(shares: Mapping[int, tuple[float, int]], what: str = "top-1 %") -> Cells:
    """Mean, interval and each seed.

    Args:
        shares: by seed, share and number of images; at least one, all of the same images.
        what: heading of the mean.
    """
    images = next(iter(shares.values()))[1]
    mean = sum(share for share, _ in shares.values()) / len(shares)
    low, high = wilson_interval(round(mean * images), images)
    return {
        what: round(100 * mean, 2),
        "95% interval": f"{100 * low:.1f} to {100 * high:.1f}",
        "each seed": ", ".join(f"{100 * share:.2f}" for share, _ in shares.values()),
        "seeds": {str(seed): round(100 * share, 2) for seed, (share, _) in shares.items()},
        "interval": [round(100 * low, 2), round(100 * high, 2)],
        "test_images": images,
    }
