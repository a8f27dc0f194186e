"""Numba kernel of reading several stores at once: the mean of sparse records is a sparse record. See ``ensemble``.

Shape suffixes: B records, S stores, R ranks of all stores one after the other, K ranks of the mean, C classes.
"""

from __future__ import annotations

import numpy as np

from logitstore.jit import kernel

_LAST = np.int64(0xFFFFFFFF)
_FEW = 64  # classes that are put in order by counting for each how many come before it, which takes no branch


@kernel
def mean_of_records(  # type: ignore[no-untyped-def]
    index_BR, prob_BR, first_S, kept_SB, tail_SB, weight_S, class_SC, index_BK, prob_BK, tail_B, kept_B
):
    """Weighted means of distributions, ranks by probability descending, then by class ascending.

    A record of which some store keeps nothing is empty. All that is written is written whole, padding too. Ends early
    at a class that does not exist.

    Args:
        index_BR: classes, in each store's own numbers.
        prob_BR: their probabilities.
        first_S: where each store's ranks begin.
        kept_SB: how many of them count.
        tail_SB: probability outside of them.
        weight_S: the weights, float64, of sum 1.
        class_SC: the common number of each class of each store.
        index_BK: classes, written; at least as many ranks as a mean can need.
        prob_BK: probabilities, written.
        tail_B: probability outside of the classes, written.
        kept_B: number of classes, written.

    Returns:
        how many records were done.
    """
    stores, num_classes = class_SC.shape
    width = index_BK.shape[1]
    padding = np.iinfo(index_BK.dtype).max
    place_C = np.full(num_classes, -1, np.int32)  # rank of each class of the present record
    class_K = np.empty(width, np.int64)
    mass_K = np.empty(width, np.float64)
    # Probabilities are not negative, so their bits are in their order: with the class below them, one number compares.
    rounded_K = np.empty(width, np.float32)
    bits_K = rounded_K.view(np.int32)
    key_K = np.empty(width, np.int64)
    outside_S = np.empty(stores, np.float64)
    for b in range(len(index_BK)):
        rest = 0.0
        empty = False
        for s in range(stores):
            left = num_classes - kept_SB[s, b]
            outside_S[s] = weight_S[s] * np.float64(tail_SB[s, b]) / left if left > 0 else 0.0
            rest += outside_S[s]
            empty |= kept_SB[s, b] == 0
        kept = 0
        for s in range(0 if empty else stores):
            for r in range(first_S[s], first_S[s] + kept_SB[s, b]):
                if index_BR[b, r] >= num_classes:
                    return b
                c = np.int64(class_SC[s, index_BR[b, r]])
                rank = place_C[c]
                if rank < 0:
                    rank = kept
                    place_C[c] = rank
                    class_K[rank] = c
                    mass_K[rank] = rest
                    kept += 1
                mass_K[rank] += weight_S[s] * np.float64(prob_BR[b, r]) - outside_S[s]
        for k in range(kept):
            place_C[class_K[k]] = -1
            rounded_K[k] = max(mass_K[k], 0.0)  # rounding may leave a trace below
            key_K[k] = (np.int64(bits_K[k]) << 32) | (_LAST - class_K[k])
        if kept <= _FEW:
            for k in range(kept):
                rank = 0
                for other in range(kept):
                    rank += key_K[other] > key_K[k]
                index_BK[b, rank] = class_K[k]
                prob_BK[b, rank] = rounded_K[k]
        else:
            key_K[:kept].sort()
            for k in range(kept):
                key = key_K[kept - 1 - k]
                bits_K[k] = key >> 32
                index_BK[b, k] = _LAST - (key & _LAST)
                prob_BK[b, k] = rounded_K[k]
        for k in range(kept, width):
            index_BK[b, k] = padding
            prob_BK[b, k] = 0.0
        tail_B[b] = 0.0 if empty else rest * (num_classes - kept)
        kept_B[b] = kept
    return len(index_BK)
