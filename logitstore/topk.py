"""Selection of what a record keeps of a view's logits: exact, total, on the device.

Order is by logit, descending, then by class, ascending, also at the cut: in bfloat16 ties are common, and a store must
not depend on how a sort happens to break them. On a GPU nothing here waits for the device but ``Fetch.numpy``, so that
the next batch can be asked of it meanwhile. Shape suffixes: B batch, C classes, K kept, M candidates.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from logitstore.device import Arriving
from logitstore.errors import InputError, NonFiniteError

_UNITS = 1 << 40
"""Probabilities are added up in parts of this size, which is well below the rounding of a logit."""
_FINE_UNITS = 1 << 60
"""The same for what lies behind a rank, which may be very little. The sum of all still fits an int64."""


@dataclass(frozen=True, kw_only=True, eq=False)
class TopK:
    """The most probable classes of each view. Tensors on the logits' device."""

    index_BK: Tensor
    """int64: classes, most probable first; beyond ``kept_B`` they mean nothing."""
    logp_BK: Tensor
    """float32: log-probabilities at temperature 1, descending; -inf beyond ``kept_B``."""
    kept_B: Tensor
    """int64: how many classes are kept of each view, 1 to K."""
    tail_B: Tensor
    """float32: log of the probability mass of all other classes; -inf where there are none."""
    logz_B: Tensor
    """float32: log-sum-exp of the logits, so that ``logp + logz`` are logits."""
    bad_B: Tensor
    """bool: whether a logit is NaN or infinite, and the rest means nothing."""

    def require_finite(self) -> None:
        """Raise NonFiniteError if a view has a NaN or an infinite logit."""
        require_finite(self.bad_B)

    def numpy(self) -> dict[str, NDArray[Any]]:
        """The same arrays but for ``bad_B``, by name, in the machine's memory.

        Raises:
            NonFiniteError: a logit is NaN or infinite.
        """
        return Fetch(self).numpy()


class Fetch:
    """A selection on its way to the machine's memory: it sets out at once, and any thread may wait for it.

    Args:
        selected: what to fetch, computed or under way on the stream that is current in the calling thread.
    """

    def __init__(self, selected: TopK) -> None:
        self._arriving = Arriving(vars(selected))

    def numpy(self) -> dict[str, NDArray[Any]]:
        """What ``TopK.numpy`` gives, and raises."""
        arrived = self._arriving.wait()
        require_finite(arrived["bad_B"])
        return {name: tensor.numpy() for name, tensor in arrived.items() if name != "bad_B"}


def select_topk(
    logits_BC: Tensor, topk: int, floor: float = 0.0, mass: float = 1.0, gain: float = 0.0, *, check: bool = True
) -> TopK:
    """Keep each view's first classes: while they pay, until they hold ``mass``, down to ``floor``, and one anyhow.

    Args:
        logits_BC: of any floating dtype; worked on as float32.
        topk: K, 1 to C.
        floor: least probability of a class that is kept; 0 keeps K classes.
        mass: a class is kept only while those before it hold less than this probability together, so the kept ones are
            the fewest that reach it; 1 keeps K classes.
        gain: a class is kept only while it and all before it lower the divergence from the teacher by so many nat each,
            see ``divergence_saved``; 0 keeps K classes.
        check: whether to look at once if all logits are finite, for which a GPU must have computed them; otherwise
            ``numpy`` looks.

    Returns:
        Classes, log-probabilities, and the mass of the rest: its log-sum-exp, not one minus a sum, so that it is
        precise however small it is.

    Raises:
        NonFiniteError: a logit is NaN or infinite, and ``check`` is on.
    """
    num_classes = logits_BC.shape[1]
    if not 1 <= topk <= num_classes:
        raise InputError(f"--topk must lie in [1, {num_classes}], the number of classes, got {topk}.")
    logits_BC = logits_BC.float() + 0.0  # -0.0 becomes 0.0: they are equal, and so must be their bits.
    logz_B = logits_BC.logsumexp(1)
    # A NaN shows in both, an Inf in the sum, a -Inf in the minimum.
    bad_B = ~(logz_B.isfinite() & logits_BC.amin(1).isfinite())
    if check:
        require_finite(bad_B)
    index_BK = _first_by_keys(logits_BC, topk) if logits_BC.is_cuda else _first_by_candidates(logits_BC, topk)
    logp_BK = logits_BC.gather(1, index_BK) - logz_B[:, None]
    keep_BK = logp_BK >= (math.log(floor) if floor > 0 else -math.inf)
    if mass < 1:
        keep_BK[:, 1:] &= _held(logp_BK)[:, :-1] < round(mass * _UNITS)
    if gain > 0:
        outside_B = logits_BC.scatter(1, index_BK, -math.inf).logsumexp(1) - logz_B
        saved_BK = divergence_saved(*_behind(logp_BK, outside_B), num_classes)
        keep_BK[:, 1:] &= (saved_BK >= gain)[:, 1:].cumprod(1).bool()
    keep_BK[:, 0] = True
    logp_BK = logp_BK.masked_fill(~keep_BK, -math.inf)
    # Classes below the floor go to the tail, so the cut moves up: they are left out of what is taken away.
    kept_logits_BK = torch.where(keep_BK, -math.inf, logits_BC.gather(1, index_BK))
    tail_B = logits_BC.scatter(1, index_BK, kept_logits_BK).logsumexp(1) - logz_B
    return TopK(index_BK=index_BK, logp_BK=logp_BK, kept_B=keep_BK.sum(1), tail_B=tail_B, logz_B=logz_B, bad_B=bad_B)


def _held(logp_BK: Tensor) -> Tensor:
    """int64: the probability of each class and those before it. Whole numbers, so no order of adding changes a cut."""
    return (logp_BK.double().exp() * _UNITS).nan_to_num().round().long().cumsum(1)


def _behind(logp_BK: Tensor, outside_B: Tensor) -> tuple[Tensor, Tensor]:
    """float64: each class's probability, and the mass behind it; of whole numbers, too.

    Args:
        logp_BK: log-probabilities, descending.
        outside_B: log of the mass of all other classes.
    """
    prob_BK, outside_B1 = (
        (logp.double().exp() * _FINE_UNITS).nan_to_num().round().long() for logp in (logp_BK, outside_B[:, None])
    )
    behind_BK = torch.cat([prob_BK[:, 1:], outside_B1], dim=1).flip(1).cumsum(1).flip(1)
    return prob_BK.double() / _FINE_UNITS, behind_BK.double() / _FINE_UNITS


def divergence_saved(prob_BK: Tensor, behind_BK: Tensor, num_classes: int) -> Tensor:
    """By how many nat KL(dense || record) falls where a class is kept, too, after all before it.

    With n classes kept and T_n behind them, spread evenly over the C - n others, the divergence is KL_n = sum over
    j > n of p_j log p_j - T_n log(T_n / (C - n)), so class n saves KL_{n-1} - KL_n = p_n log p_n - T_{n-1} log(T_{n-1}
    / (C - n + 1)) + T_n log(T_n / (C - n)). That is never negative, and 0 for the last class. Where every class kept
    costs as many bytes, keeping those that save most is what rate-distortion theory asks for (Cover and Thomas,
    Elements of Information Theory, chapter 10).

    Args:
        prob_BK: float64 probabilities p_1, p_2, ... of the first classes in the exact order.
        behind_BK: T_1, T_2, ...: the mass of all that follow each of them, those beyond K included.
        num_classes: C.

    Returns:
        float64 [B, K]; NaN or 0 where there is no mass from here on.
    """
    after_K = num_classes - torch.arange(1, prob_BK.shape[1] + 1, device=prob_BK.device)
    before_BK = prob_BK + behind_BK
    # Against what an even spread of the mass before would give: no large terms that cancel.
    fair_BK = before_BK / (after_K + 1)
    return prob_BK.xlogy(prob_BK / fair_BK) + behind_BK.xlogy(behind_BK / (fair_BK * after_K.clamp(min=1)))


def require_finite(bad_B: Tensor) -> None:
    """Raise NonFiniteError if a view is marked as having a NaN or an infinite logit."""
    bad = int(bad_B.sum())
    if bad:
        raise NonFiniteError(
            f"The teacher gave NaN or infinite logits for {bad} of {len(bad_B)} views: use --dtype float32 or "
            "bfloat16, and check its weights."
        )


def _first_by_keys(logits_BC: Tensor, topk: int) -> Tensor:
    """Classes of the ``topk`` first entries in the exact order, by one unique key an entry. Logits without -0.0.

    It looks at no value on the host, so a GPU runs on.
    """
    num_classes = logits_BC.shape[1]
    backwards_C = torch.arange(num_classes - 1, -1, -1, device=logits_BC.device)
    return ((_ordered(logits_BC) << 32) + backwards_C).topk(topk, dim=1, sorted=True).indices


def _first_by_candidates(logits_BC: Tensor, topk: int) -> Tensor:
    """The same, four times as fast with many classes on a CPU. Logits without -0.0.

    The values of ``torch.topk`` are exact, only its choice among ties is not. So it is asked for somewhat more, until
    the last value lies below the cut; then every entry that reaches the cut is among the candidates, and these few are
    put into order by unique keys. NaNs count as largest and end the search as any value does.
    """
    num_classes = logits_BC.shape[1]
    size = min(num_classes, topk + topk // 4 + 16)
    while True:
        values_BM, candidate_BM = logits_BC.topk(size, dim=1, sorted=True)
        if size == num_classes or bool((values_BM[:, -1] < values_BM[:, topk - 1]).all()):
            break
        size = min(num_classes, 4 * size)
    key_BM = (_ordered(values_BM) << 32) + (num_classes - 1 - candidate_BM)
    place_BK = key_BM.topk(topk, dim=1, sorted=True).indices
    return candidate_BM.gather(1, place_BK)


def _ordered(values: Tensor) -> Tensor:
    """int64 numbers that compare as the float32 values do: their bits, negative ones turned round."""
    bits = values.contiguous().view(torch.int32)
    return torch.where(bits < 0, bits ^ 0x7FFFFFFF, bits).to(torch.int64)
