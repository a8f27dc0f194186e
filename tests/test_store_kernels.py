"""The kernels of reading against plain numpy, with the JIT and without."""

from __future__ import annotations

import json
import zlib
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from logitstore.errors import InputError
from logitstore.pcg import VisitOrder
from logitstore.store import decode_records
from logitstore.store.kernels import visited
from logitstore.store.records import DecodedRecords
from logitstore.store.values import FORMS, Values, quantise
from tests.helpers import printed_without_jit
from tests.store_cases import masses


def made(
    values: Values, count: int, topk: int, dtype: Any = np.uint16
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Stored records of every length from none to all ranks, some without a tail."""
    rng = np.random.Generator(np.random.PCG64(topk))
    kept = np.arange(count) % (topk + 1)
    there = np.arange(topk) < kept[:, None]
    index = np.where(there, rng.permuted(np.tile(np.arange(topk), (count, 1)), axis=1), np.iinfo(dtype).max)
    logp = np.where(there, -np.cumsum(rng.exponential(0.4, (count, topk)), axis=1), -np.inf)
    tail = np.where((kept == 0) | (rng.random(count) < 0.2), -np.inf, rng.uniform(-12, 0, count))
    return index.astype(dtype), quantise(logp.astype(np.float32), values), quantise(tail.astype(np.float32), values)


def plain(
    index: NDArray[Any], logp: NDArray[Any], tail: NDArray[Any], width: int, values: Values
) -> tuple[NDArray[Any], NDArray[np.float32], NDArray[np.float32], NDArray[Any]]:
    """What docs/format.md says of reading, one operation after the other, in float64 sums."""
    if values != "f16":
        scale = {"q8": -8.0, "q4": -4.0, "q2": -2.0}[values]
        prob, rest = (np.where(x == 255, 0, np.exp(x / scale)).astype(np.float32) for x in (logp, tail))
    else:
        prob, rest = (np.where(np.isnan(x), 0, np.exp(x.astype(np.float32))) for x in (logp, tail))
    outside = rest.astype(np.float64) + prob[:, width:].sum(axis=1, dtype=np.float64)
    total = prob[:, :width].sum(axis=1, dtype=np.float64) + outside
    scale = np.divide(1.0, total, where=total > 0, out=np.zeros_like(total))
    kept = (index[:, :width] != np.iinfo(index.dtype).max).sum(axis=1)
    scaled = prob[:, :width] * scale.astype(np.float32)[:, None]
    return index[:, :width], scaled, (outside * scale).astype(np.float32), kept


def same(found: DecodedRecords, expected: tuple[NDArray[Any], ...]) -> None:
    index, prob, tail, kept = expected
    assert np.array_equal(found.index, index) and np.array_equal(found.kept, kept)
    # The order of a float64 sum may move a float32 by one unit.
    np.testing.assert_allclose(found.prob, prob, rtol=2e-7, atol=0)
    np.testing.assert_allclose(found.tail, tail, rtol=2e-7, atol=0)


@pytest.mark.parametrize("values", FORMS)
@pytest.mark.parametrize(("topk", "dtype"), [(1, np.uint16), (10, np.uint16), (64, np.uint32), (100, np.uint16)])
@pytest.mark.parametrize("cut", [1, 2, 32, 50, 51, 100])
def test_masses_are_those_of_the_plain_form(values: Values, topk: int, dtype: Any, cut: int) -> None:
    index, logp, tail = made(values, 211, topk, dtype)
    width = min(cut, topk)
    expected = plain(index, logp, tail, width, values)
    out = DecodedRecords.empty(211, width, index.dtype)
    out.decode(0, index[None], logp[None], tail, 0, 211, values=values)
    same(out, expected)
    assert out.index.dtype == dtype and out.kept.dtype == np.int32
    found = decode_records(index, logp, tail, values=values, topk=cut)
    assert all(np.array_equal(one, other) for one, other in zip(found, (out.index, out.prob, out.tail), strict=True))


@pytest.mark.parametrize("values", FORMS)
@pytest.mark.parametrize("cut", [3, 32, 40, 64])
def test_groups_of_ranks_and_parts_of_a_block_are_one(values: Values, cut: int) -> None:
    index, logp, tail = made(values, 130, 64)
    index_QPR, logp_QPR = (
        np.ascontiguousarray(np.moveaxis(array.reshape(130, 2, 32), 1, 0)) for array in (index, logp)
    )
    out = DecodedRecords.empty(100, cut, index.dtype)
    for low, high in ((17, 17), (17, 18), (18, 117)):
        out.decode(low - 17, index_QPR, logp_QPR, tail, low, high, values=values)
    same(out, tuple(array[17:117] for array in plain(index, logp, tail, cut, values)))


def test_the_mass_of_every_half_is_its_exponential() -> None:
    halves = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    finite = halves[halves < 11]  # no stored one is larger, and above 88 there is no float32
    assert np.array_equal(masses(finite, "f16"), np.exp(finite.astype(np.float32)))
    assert not masses(halves[np.isnan(halves)], "f16").any()


@pytest.mark.parametrize("samples", [1, 2, 3, 5, 16, 17, 1000, 65_536, 65_537, 1_281_167])
def test_a_run_of_the_visit_order(samples: int) -> None:
    order = VisitOrder(num_samples=samples, run_seed=2**63 + 1, epoch=299)
    for start, stop in (
        (0, min(samples, 3000)),
        (samples // 2, min(samples, samples // 2 + 700)),
        (samples - 1, samples),
    ):
        found = visited(order, start, stop)
        assert found.dtype == np.int64 and np.array_equal(found, order.samples(np.arange(start, stop)))


@pytest.mark.parametrize("shapes", [((3, 2), (3, 3), (3,)), ((3, 2), (3, 2), (2,)), ((3, 2), (2, 2), (3,))])
def test_arrays_that_do_not_fit_together_are_refused(shapes: tuple[tuple[int, ...], ...]) -> None:
    index, logp, tail = (np.zeros(shape, dtype) for shape, dtype in zip(shapes, "HBB", strict=True))
    with pytest.raises(InputError, match="one tail each"):
        decode_records(index, logp, tail, values="q8")


@pytest.mark.parametrize(("values", "stored"), [("f16", "q8"), ("q4", "f16")])
def test_another_form_than_the_stored_one_is_refused(values: Values, stored: Values) -> None:
    with pytest.raises(InputError, match=f"Log-probabilities as {values} are"):
        decode_records(*made(stored, 8, 3), values=values)


def checksums() -> dict[str, int]:
    """CRCs of what the kernels give."""
    found = {}
    for values in FORMS:
        for cut in (2, 7):
            arrays = decode_records(*made(values, 40, 7), values=values, topk=cut)
            found[f"{values} {cut}"] = zlib.crc32(b"".join(array.tobytes() for array in arrays))
    for samples in (1, 17, 1000):
        order = visited(VisitOrder(num_samples=samples, run_seed=5, epoch=3), 0, min(samples, 50))
        found[f"order {samples}"] = zlib.crc32(order.tobytes())
    return found


def test_kernels_are_the_same_without_the_jit() -> None:
    assert printed_without_jit(__file__) == checksums()


if __name__ == "__main__":
    print(json.dumps(checksums()))
