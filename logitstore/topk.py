"""Selection of what a record keeps of a view's logits: exact, total, on the device.

Order is by logit, descending, then by class, ascending, also at the cut: in bfloat16 ties are common, and a store must
not depend on how a sort happens to break them. Shape suffixes: B batch, C classes, K kept, M candidates.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from logitstore.errors import InputError, NonFiniteError


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

    def numpy(self) -> dict[str, NDArray[Any]]:
        """The same arrays, by name, in the machine's memory."""
        names = ("index_BK", "logp_BK", "kept_B", "tail_B", "logz_B")
        return {name: getattr(self, name).cpu().numpy() for name in names}


def select_topk(logits_BC: Tensor, topk: int, floor: float = 0.0) -> TopK:
    """Keep each view's ``topk`` most probable classes whose probability is at least ``floor``, and the first anyhow.

    Args:
        logits_BC: of any floating dtype; worked on as float32.
        topk: K, 1 to C.
        floor: least probability of a class that is kept; 0 keeps K classes.

    Returns:
        Classes, log-probabilities, and the mass of the rest: its log-sum-exp, not one minus a sum, so that it is
        precise however small it is.

    Raises:
        NonFiniteError: a logit is NaN or infinite.
    """
    num_views, num_classes = logits_BC.shape
    if not 1 <= topk <= num_classes:
        raise InputError(f"--topk must lie in [1, {num_classes}], the number of classes, got {topk}.")
    logits_BC = logits_BC.float() + 0.0  # -0.0 becomes 0.0: they are equal, and so must be their bits.
    _check_finite(logits_BC)
    index_BK = _first(logits_BC, topk)
    logz_B = logits_BC.logsumexp(1)
    logp_BK = logits_BC.gather(1, index_BK) - logz_B[:, None]
    keep_BK = logp_BK >= (math.log(floor) if floor > 0 else -math.inf)
    keep_BK[:, 0] = True
    logp_BK = logp_BK.masked_fill(~keep_BK, -math.inf)
    # Classes below the floor go to the tail, so the cut moves up: they are left out of what is taken away.
    kept_logits_BK = torch.where(keep_BK, -math.inf, logits_BC.gather(1, index_BK))
    tail_B = logits_BC.scatter(1, index_BK, kept_logits_BK).logsumexp(1) - logz_B
    return TopK(index_BK=index_BK, logp_BK=logp_BK, kept_B=keep_BK.sum(1), tail_B=tail_B, logz_B=logz_B)


def _check_finite(logits_BC: Tensor) -> None:
    # A sum is finite only if all its terms are; it costs a tenth of looking at each.
    if bool(torch.isfinite(logits_BC.sum(1)).all()):
        return
    bad = int((~torch.isfinite(logits_BC)).any(1).sum())
    if bad:
        raise NonFiniteError(
            f"The teacher gave NaN or infinite logits for {bad} of {len(logits_BC)} views: use --dtype float32 or "
            "bfloat16, and check its weights."
        )


def _first(logits_BC: Tensor, topk: int) -> Tensor:
    """Classes of the ``topk`` first entries in the exact order. Finite logits without -0.0.

    The values of ``torch.topk`` are exact, only its choice among ties is not. So it is asked for somewhat more, until
    the last value lies below the cut; then every entry that reaches the cut is among the candidates, and these few are
    put into order by unique keys.
    """
    num_classes = logits_BC.shape[1]
    size = min(num_classes, topk + topk // 4 + 16)
    while True:
        values_BM, candidate_BM = logits_BC.topk(size, dim=1, sorted=True)
        if size == num_classes or bool((values_BM[:, -1] < values_BM[:, topk - 1]).all()):
            break
        size = min(num_classes, 4 * size)
    key_BM = _ordered(values_BM) * 2**32 + (num_classes - 1 - candidate_BM)
    place_BK = key_BM.topk(topk, dim=1, sorted=True).indices
    return candidate_BM.gather(1, place_BK)


def _ordered(values: Tensor) -> Tensor:
    """int64 numbers that compare as the float32 values do: their bits, negative ones turned round."""
    bits = values.contiguous().view(torch.int32)
    return torch.where(bits < 0, bits ^ 0x7FFFFFFF, bits).to(torch.int64)
