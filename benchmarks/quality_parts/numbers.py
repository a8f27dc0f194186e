"""Whether what a cut costs on paper predicts what it costs a student: correlations over conditions, with their doubt.

Two questions, two answers. Could chance alone give such a correlation? For that, each seed's values are dealt to the
conditions anew: if what is kept made no difference, any way of dealing them would be as likely as the one that was
seen. Cuts that are alike lead a seed's students astray alike, so that answer is too sure of itself. How different could
it be with other cuts and other seeds? For that, both are drawn again with replacement, a seed for all conditions at
once. A relation is called one where both agree. Shape suffixes: P conditions, S seeds, D draws.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

F64 = NDArray[np.float64]
DRAWS = 10_000
LEAST_POINTS = 4
_LEVEL = 0.05
_ROUNDING = 1e-9  # correlations that are equal but for the order of adding


def ranks(values_DP: F64) -> F64:
    """Ranks from 1 in each row; equal values share the mean of theirs."""
    below = (values_DP[:, None, :] < values_DP[:, :, None]).sum(axis=2)
    equal = (values_DP[:, None, :] == values_DP[:, :, None]).sum(axis=2)
    return np.asarray(below + (equal + 1) / 2)


def pearson(x_DP: F64, y_DP: F64) -> F64:
    """Pearson's correlation of each row, [D]; NaN where one side does not vary."""
    x, y = (side - side.mean(axis=1, keepdims=True) for side in (x_DP, y_DP))
    scale = np.sqrt((x**2).sum(axis=1) * (y**2).sum(axis=1))
    with np.errstate(invalid="ignore", divide="ignore"):
        found: F64 = np.where(scale > _ROUNDING**2, (x * y).sum(axis=1) / scale, np.nan)
    return found


def spearman(x_DP: F64, y_DP: F64) -> F64:
    """Spearman's rank correlation of each row, likewise."""
    return pearson(ranks(x_DP), ranks(y_DP))


def correlation(x_PS: F64, y_PS: F64, *, draws: int = DRAWS) -> dict[str, Any] | None:
    """Pearson's and Spearman's correlation of two things that were measured for each condition and seed.

    Both are those of the means over the seeds.

    Args:
        x_PS: what predicts.
        y_PS: what is predicted.
        draws: of either kind.

    Returns:
        for each of the two ``r``, that of ``each_seed`` alone, its 95% bootstrap ``interval`` over conditions and
        seeds, and the two-sided ``p`` of the permutation within seeds; ``slope``, the change of y for one of x by least
        squares. None where there are fewer than four conditions, or one side is the same for all.
    """
    points, seeds = x_PS.shape
    if points < LEAST_POINTS or not (np.ptp(x_PS.mean(1)) > 0 and np.ptp(y_PS.mean(1)) > 0):
        return None
    rng = np.random.default_rng(0)
    x_1P, y_1P = x_PS.mean(axis=1)[None], y_PS.mean(axis=1)[None]
    dealt_DSP = rng.permuted(np.broadcast_to(y_PS.T, (draws, seeds, points)), axis=2)
    x_DP = np.broadcast_to(x_1P, (draws, points))
    condition_DP1 = rng.integers(points, size=(draws, points, 1))
    seed_D1S = rng.integers(seeds, size=(draws, 1, seeds))  # for all conditions: seeds are good or bad for all alike
    drawn = [side[condition_DP1, seed_D1S].mean(axis=2) for side in (x_PS, y_PS)]
    found: dict[str, Any] = {"conditions": points, "seeds": seeds}
    for name, measure in (("pearson", pearson), ("spearman", spearman)):
        r = float(measure(x_1P, y_1P)[0])
        by_chance_D = np.abs(measure(x_DP, dealt_DSP.mean(axis=1)))
        again_D = measure(*drawn)
        low, high = np.nanpercentile(again_D, [2.5, 97.5])
        found[name] = {
            "r": r,
            "each_seed": [None if np.isnan(one) else float(one) for one in measure(x_PS.T, y_PS.T)],
            "interval": [min(float(low), r), max(float(high), r)],  # ties among draws pull ranks away from 1
            "p": float(1 + (by_chance_D >= abs(r) - _ROUNDING).sum()) / (1 + draws),
        }
    found["slope"] = float(np.polyfit(x_1P[0], y_1P[0], 1)[0])
    return found


def sentence(what: str, found: dict[str, Any] | None) -> str:
    """A correlation in words, whatever it is."""
    if found is None:
        return f"KL and {what}: no correlation to be had, with fewer than {LEAST_POINTS} conditions or all alike."
    parts = []
    for name in ("pearson", "spearman"):
        value = found[name]
        low, high = value["interval"]
        seeds = ", ".join("none" if r is None else f"{r:+.2f}" for r in value["each_seed"])
        doubt = f"95% {low:+.2f} to {high:+.2f}, p {value['p']:.4f}"
        parts.append(f"{name.capitalize()} {value['r']:+.2f} (each seed {seeds}; {doubt})")
    low, high = found["spearman"]["interval"]
    known = found["spearman"]["p"] <= _LEVEL and low * high > 0
    verdict = "the order of the one tells of the order of the other" if known else "not settled: chance could give that"
    return (
        f"KL and {what}, {found['conditions']} conditions, {found['seeds']} seeds: {'; '.join(parts)}; "
        f"{found['slope'] / 10:+.3g} for each 0.1 nat; {verdict}."
    )
