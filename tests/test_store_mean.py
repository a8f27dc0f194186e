"""The mean of records against dense means and against a plain form, with the JIT and without."""

from __future__ import annotations

import json
import zlib
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from logitstore.errors import DamagedError
from logitstore.store import Records, mean_records
from tests.ensemble_cases import dense, records
from tests.helpers import printed_without_jit


def plain_mean(
    parts: list[Records], weights: list[float], num_classes: int, class_SC: NDArray[np.int64]
) -> tuple[list[dict[int, float]], NDArray[np.float64]]:
    """The kept classes of the mean with their probabilities, in order, and its tails; class by class in float64."""
    whole = [dense(part, num_classes) for part in parts]
    found, tails = [], []
    for row in range(len(parts[0])):
        kept = [part.index[row, : part.kept[row]].tolist() for part in parts]
        if not all(kept):
            found.append({})
            tails.append(0.0)
            continue
        union = {int(class_SC[s, c]) for s, classes in enumerate(kept) for c in classes}
        own = [{int(number): c for c, number in enumerate(class_SC[s])} for s in range(len(parts))]
        mean = [sum(w * whole[s][row, own[s][c]] for s, w in enumerate(weights)) for c in range(num_classes)]
        found.append({c: mean[c] for c in sorted(union, key=lambda c: (-mean[c], c))})
        tails.append(sum(mean) - sum(found[-1].values()))
    return found, np.array(tails)


@given(
    num_classes=st.integers(1, 60),
    topks=st.lists(st.integers(1, 60), min_size=2, max_size=4),
    seed=st.integers(0, 2**32),
    heavy=st.lists(st.integers(1, 9), min_size=4, max_size=4),
    wide=st.booleans(),
)
def test_the_mean_of_records_is_the_mean_of_their_distributions(
    num_classes: int, topks: list[int], seed: int, heavy: list[int], wide: bool
) -> None:
    dtype = np.uint32 if wide else np.uint16
    parts = [
        records(seed + s, count=12, topk=min(k, num_classes), num_classes=num_classes, dtype=dtype)
        for s, k in enumerate(topks)
    ]
    weights = np.array(heavy[: len(parts)]) / sum(heavy[: len(parts)])
    mean = mean_records(parts, weights.tolist(), num_classes=num_classes)
    whole = sum(w * dense(part, num_classes) for w, part in zip(weights, parts, strict=True))
    used = np.all([part.kept > 0 for part in parts], axis=0)
    np.testing.assert_allclose(dense(mean, num_classes)[used], whole[used], rtol=3e-7, atol=1e-9)
    assert not dense(mean, num_classes)[~used].any()
    assert np.array_equal(mean.weight, used)
    assert mean.index.dtype == dtype and mean.logz is None
    assert mean.index.shape == (12, min(num_classes, sum(min(k, num_classes) for k in topks)))
    ranks = np.arange(mean.index.shape[1])
    assert ((mean.index == np.iinfo(dtype).max) == (ranks >= mean.kept[:, None])).all()
    assert not mean.prob[ranks >= mean.kept[:, None]].any()
    np.testing.assert_allclose((mean.prob.sum(1) + mean.tail)[used], 1, atol=1e-6)
    assert (np.diff(mean.prob, axis=1) <= 0).all()


@pytest.mark.parametrize(("topk", "num_classes"), [(1, 1), (1, 9), (5, 9), (9, 9), (40, 300), (300, 300)])
def test_the_kernel_is_its_plain_form(topk: int, num_classes: int) -> None:
    """Classes, their order and all numbers, also where each store numbers the classes in its own way."""
    rng = np.random.Generator(np.random.PCG64(topk))
    class_SC = np.stack([np.arange(num_classes), rng.permutation(num_classes), rng.permutation(num_classes)])
    parts = [records(s, count=60, topk=max(1, topk - s), num_classes=num_classes) for s in range(3)]
    weights = [0.5, 0.375, 0.125]
    mean = mean_records(parts, weights, num_classes=num_classes, class_SC=class_SC)
    found, tails = plain_mean(parts, weights, num_classes, class_SC)
    assert mean.kept.tolist() == [len(row) for row in found]
    np.testing.assert_allclose(mean.tail, tails, rtol=3e-7, atol=1e-7)
    for row, expected in enumerate(found):
        classes = mean.index[row, : mean.kept[row]].tolist()
        assert set(classes) == set(expected)
        np.testing.assert_allclose(mean.prob[row, : mean.kept[row]], list(expected.values()), rtol=3e-7, atol=1e-9)
        np.testing.assert_allclose(
            mean.prob[row, : mean.kept[row]], [expected[c] for c in classes], rtol=3e-7, atol=1e-9
        )


def test_equal_probabilities_are_ordered_by_class() -> None:
    one = Records(
        sample=np.arange(1),
        seed=np.zeros(1, np.uint32),
        index=np.array([[7, 2, 5]], np.uint16),
        prob=np.full((1, 3), 0.25, np.float32),
        tail=np.full(1, 0.25, np.float32),
        kept=np.full(1, 3, np.int32),
        weight=np.ones(1, np.float32),
        logz=None,
    )
    other = replace(one, index=np.array([[2, 7, 0]], np.uint16))
    mean = mean_records([one, other], [0.5, 0.5], num_classes=11)
    assert mean.index.tolist() == [[2, 7, 0, 5, 65535, 65535]]
    assert mean.prob[0, 0] == mean.prob[0, 1] and mean.prob[0, 2] == mean.prob[0, 3]
    assert mean.prob[0, 2] == pytest.approx(0.5 * 0.25 + 0.5 * 0.25 / 8)


def test_a_class_that_does_not_exist_is_refused() -> None:
    one, other = (records(s, count=4, topk=3, num_classes=9, empty=False) for s in range(2))
    other.index[2, 0] = 9
    with pytest.raises(DamagedError, match="sample 2 keeps a class of 9 or above"):
        mean_records([one, other], [0.5, 0.5], num_classes=9)


def checksums() -> dict[str, int]:
    """CRCs of what the kernel gives."""
    found = {}
    for topk, num_classes, dtype in ((1, 1, np.uint16), (4, 9, np.uint16), (30, 40, np.uint32)):
        parts = [records(s, count=25, topk=topk, num_classes=num_classes, dtype=dtype) for s in range(3)]
        mean = mean_records(parts, [0.5, 0.25, 0.25], num_classes=num_classes)
        arrays = (mean.index, mean.prob, mean.tail, mean.kept)
        found[f"{topk} of {num_classes}"] = zlib.crc32(b"".join(array.tobytes() for array in arrays))
    return found


def test_the_kernel_is_the_same_without_the_jit() -> None:
    assert printed_without_jit(__file__) == checksums()


if __name__ == "__main__":
    print(json.dumps(checksums()))
