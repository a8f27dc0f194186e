"""PCG32, seeds of views, the visit order."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from logitstore.errors import InputError
from logitstore.pcg import VisitOrder, pair_seeds, pcg32_hash, pcg32_init, pcg32_next, view_seeds

# pcg32-demo of the reference implementation, seed 42, stream 54.
REFERENCE = [0xA15C02B7, 0x7B47F409, 0xBA1D3330, 0x83D2F293, 0xBFA4784B, 0xCBED606E]

run_seeds = st.integers(0, 2**64 - 1)
epochs = st.integers(0, 10_000)


def twin(seed: int, stream: int, count: int) -> list[int]:
    """PCG32 with Python's own integers, after the description of XSH-RR: xorshift high, then a random rotation."""
    mask = (1 << 64) - 1
    inc = (stream << 1 | 1) & mask
    state = ((inc + seed) * 6364136223846793005 + inc) & mask
    found = []
    for _ in range(count):
        old, state = state, (state * 6364136223846793005 + inc) & mask
        shifted = ((old >> 18 ^ old) >> 27) & 0xFFFFFFFF
        turn = old >> 59
        found.append((shifted >> turn | shifted << (32 - turn)) & 0xFFFFFFFF)
    return found


def hash_twin(*words: int) -> int:
    """The hash of words with Python's own integers, as docs/format.md states it."""
    mask = (1 << 64) - 1
    state = 0
    for word in (*words, 0, 0):
        state = ((state ^ word) * 6364136223846793005 + 1442695040888963407) & mask
        state ^= state >> 32
    shifted = ((state >> 18 ^ state) >> 27) & 0xFFFFFFFF
    turn = state >> 59
    return (shifted >> turn | shifted << (32 - turn)) & 0xFFFFFFFF


def order_twin(num_samples: int, run_seed: int, epoch: int, position: int) -> int:
    """The sample at a position, as docs/format.md states it."""
    half = max(1, ((num_samples - 1).bit_length() + 1) // 2)
    words = (0x6F726472, run_seed & 0xFFFFFFFF, run_seed >> 32, epoch)
    keys = [hash_twin(*words, i) for i in range(8)]
    value = position
    while True:
        left, right = value >> half, value & ((1 << half) - 1)
        for key in keys:
            state = right ^ key << 32
            for word in (key, right):
                state = ((state ^ word) * 6364136223846793005 + 1442695040888963407) % (1 << 64)
                state ^= state >> 32
            left, right = right, left ^ (state >> 32 & ((1 << half) - 1))
        value = left << half | right
        if value < num_samples:
            return value


def draw(seed: int, stream: int, count: int) -> list[int]:
    found = []
    with np.errstate(over="ignore"):
        state, inc = pcg32_init(np.uint64(seed), np.uint64(stream))
        for _ in range(count):
            state, bits = pcg32_next(state, inc)
            found.append(int(bits))
    return found


def test_reference_vectors() -> None:
    assert draw(42, 54, 6) == REFERENCE
    assert twin(42, 54, 6) == REFERENCE


@given(seed=run_seeds, stream=run_seeds)
def test_any_generator_equals_its_twin_in_plain_integers(seed: int, stream: int) -> None:
    assert draw(seed, stream, 5) == twin(seed, stream, 5)


def test_generators_run_over_arrays() -> None:
    with np.errstate(over="ignore"):
        state, inc = pcg32_init(np.array([42, 42], np.uint64), np.array([54, 55], np.uint64))
        _, bits = pcg32_next(state, inc)
    assert bits.tolist() == [draw(42, 54, 1)[0], draw(42, 55, 1)[0]]


class TestHash:
    """``pcg32_hash``."""

    def test_golden_values(self) -> None:
        assert [int(pcg32_hash(*words)) for words in [(0,), (1,), (0, 0), (1, 2, 3)]] == HASHES

    @given(words=st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=6))
    def test_it_equals_its_twin_in_plain_integers(self, words: list[int]) -> None:
        assert pcg32_hash(*words) == hash_twin(*words)

    def test_shapes_broadcast(self) -> None:
        words = np.arange(6, dtype=np.uint32).reshape(2, 3)
        found = pcg32_hash(7, words[:, :1], words)
        assert found.shape == (2, 3) and found.dtype == np.uint32
        assert found[1, 2] == pcg32_hash(7, 3, 5)
        assert pcg32_hash(7).shape == ()

    def test_the_place_of_a_word_counts(self) -> None:
        assert pcg32_hash(1, 2) != pcg32_hash(2, 1)
        assert pcg32_hash(0) != pcg32_hash(0, 0)

    def test_every_bit_of_the_input_reaches_every_bit_of_the_output(self) -> None:
        """Avalanche: any flipped input bit flips each output bit in about half of the cases."""
        words = pcg32_hash(99, np.arange(4000)).astype(np.uint64)
        other = pcg32_hash(98, np.arange(4000)).astype(np.uint64)
        for bit in range(32):
            for flipped in (
                pcg32_hash(1, words ^ np.uint64(1 << bit), other),
                pcg32_hash(1, words, other ^ np.uint64(1 << bit)),
            ):
                _check_avalanche(pcg32_hash(1, words, other) ^ flipped)


def _check_avalanche(changed: np.ndarray) -> None:
    shares = [(changed >> np.uint32(bit) & 1).mean() for bit in range(32)]
    assert min(shares) > 0.45 and max(shares) < 0.55  # 6 standard deviations of 4,000 coins


class TestViewSeeds:
    """``view_seeds``."""

    def test_golden_values(self) -> None:
        assert view_seeds(0, 0, np.arange(4)).tolist() == SEEDS[0]
        assert view_seeds(2**64 - 1, 299, [0, 1_281_166, 2**33 + 5]).tolist() == SEEDS[1]

    @given(run_seed=run_seeds, epoch=epochs, samples=st.lists(st.integers(0, 2**40), min_size=1, max_size=8))
    def test_a_seed_depends_on_its_own_sample_only(self, run_seed: int, epoch: int, samples: list[int]) -> None:
        together = view_seeds(run_seed, epoch, samples)
        assert together.dtype == np.uint32
        assert together.tolist() == [int(view_seeds(run_seed, epoch, sample)) for sample in samples]

    @given(run_seed=run_seeds, epoch=epochs, sample=st.integers(0, 2**40))
    def test_it_equals_its_twin_in_plain_integers(self, run_seed: int, epoch: int, sample: int) -> None:
        words = (0x73656564, run_seed & 0xFFFFFFFF, run_seed >> 32, epoch, sample & 0xFFFFFFFF, sample >> 32)
        assert view_seeds(run_seed, epoch, sample) == hash_twin(*words)

    def test_shapes_are_kept(self) -> None:
        assert view_seeds(0, 0, np.zeros((2, 3), np.int64)).shape == (2, 3)
        assert view_seeds(0, 0, []).shape == (0,)

    @pytest.mark.parametrize("bit", range(64))
    def test_every_bit_of_the_run_seed_changes_about_half_of_the_bits(self, bit: int) -> None:
        samples = np.arange(4000)
        _check_avalanche(view_seeds(12345, 3, samples) ^ view_seeds(12345 ^ 1 << bit, 3, samples))

    def test_neighbouring_epochs_and_samples_are_unrelated(self) -> None:
        samples = np.arange(4000)
        seeds = view_seeds(0, 0, samples)
        _check_avalanche(seeds ^ view_seeds(0, 1, samples))
        _check_avalanche(seeds ^ view_seeds(0, 0, samples + 1))
        _check_avalanche(seeds ^ view_seeds(0, 0, samples + 2**32))

    def test_seeds_repeat_no_more_than_by_chance(self) -> None:
        seeds = np.concatenate([view_seeds(0, epoch, np.arange(20_000)) for epoch in range(10)])
        expected = len(seeds) ** 2 / 2**33  # 4.7 pairs
        assert len(seeds) - len(np.unique(seeds)) < expected + 6 * expected**0.5

    def test_seeds_are_uniform(self) -> None:
        counts = np.bincount(view_seeds(0, 0, np.arange(100_000)) >> np.uint32(24), minlength=256)
        chi2 = ((counts - counts.mean()) ** 2 / counts.mean()).sum()
        assert 130 < chi2 < 400  # 255 degrees of freedom, mean 255, deviation 23

    @pytest.mark.parametrize("run_seed", [-1, 2**64])
    def test_run_seeds_outside_64_bits_are_refused(self, run_seed: int) -> None:
        with pytest.raises(InputError, match="run seed"):
            view_seeds(run_seed, 0, 0)


class TestPairSeeds:
    """``pair_seeds``."""

    def test_golden_values(self) -> None:
        assert pair_seeds([1, 2], [2, 1]).tolist() == PAIRS

    @given(even=st.integers(0, 2**32 - 1), odd=st.integers(0, 2**32 - 1))
    def test_it_equals_its_twin_in_plain_integers(self, even: int, odd: int) -> None:
        low, high = (hash_twin(0x70616972, half, even, odd) for half in (0, 1))
        assert pair_seeds(even, odd) == low | high << 32

    def test_both_seeds_and_their_order_count(self) -> None:
        even, odd = (view_seeds(0, epoch, np.arange(4000)) for epoch in (0, 1))
        one = pair_seeds(even, odd)
        assert one.dtype == np.uint64
        for other in (pair_seeds(odd, even), pair_seeds(even ^ 1, odd), pair_seeds(even, odd ^ 1)):
            _check_avalanche((one ^ other).astype(np.uint32))
            _check_avalanche((one >> np.uint64(32) ^ other >> np.uint64(32)).astype(np.uint32))
        _check_avalanche((one ^ one >> np.uint64(32)).astype(np.uint32))  # the halves are not each other


class TestVisitOrder:
    """``VisitOrder``."""

    def test_golden_values(self) -> None:
        order = VisitOrder(num_samples=10, run_seed=0, epoch=0)
        assert order.samples(np.arange(10)).tolist() == ORDERS[0]
        order = VisitOrder(num_samples=1_281_167, run_seed=2**63 + 1, epoch=299)
        assert order.samples([0, 1, 640_000, 1_281_166]).tolist() == ORDERS[1]

    @pytest.mark.parametrize("num_samples", [1, 2, 3, 4, 5, 7, 8, 15, 16, 17, 63, 64, 65, 256, 257, 1437, 4096, 4097])
    def test_it_is_a_permutation_and_its_inverse(self, num_samples: int) -> None:
        for epoch in range(3):
            order = VisitOrder(num_samples=num_samples, run_seed=5, epoch=epoch)
            numbers = np.arange(num_samples)
            samples = order.samples(numbers)
            assert np.array_equal(np.sort(samples), numbers)
            assert np.array_equal(order.positions(samples), numbers)
            assert np.array_equal(order.samples(order.positions(numbers)), numbers)

    @settings(max_examples=200)
    @given(data=st.data(), num_samples=st.integers(1, 2**40), run_seed=run_seeds, epoch=epochs)
    def test_both_ways_at_any_size(self, data: st.DataObject, num_samples: int, run_seed: int, epoch: int) -> None:
        numbers = data.draw(st.lists(st.integers(0, num_samples - 1), min_size=1, max_size=6))
        order = VisitOrder(num_samples=num_samples, run_seed=run_seed, epoch=epoch)
        samples = order.samples(numbers)
        assert samples.dtype == np.int64 and samples.min() >= 0 and samples.max() < num_samples
        assert order.positions(samples).tolist() == numbers
        assert order.samples(order.positions(numbers)).tolist() == numbers
        assert samples.tolist() == [int(order.samples(number)) for number in numbers]

    @given(data=st.data(), num_samples=st.integers(1, 2**34), run_seed=run_seeds, epoch=epochs)
    def test_it_equals_its_twin_in_plain_integers(
        self, data: st.DataObject, num_samples: int, run_seed: int, epoch: int
    ) -> None:
        position = data.draw(st.integers(0, num_samples - 1))
        order = VisitOrder(num_samples=num_samples, run_seed=run_seed, epoch=epoch)
        assert order.samples(position) == order_twin(num_samples, run_seed, epoch, position)

    def test_epochs_and_run_seeds_visit_in_unrelated_orders(self) -> None:
        positions = np.arange(10_000)
        orders = [
            VisitOrder(num_samples=10_000, run_seed=run_seed, epoch=epoch).samples(positions)
            for run_seed, epoch in [(0, 0), (0, 1), (1, 0), (2**32, 0)]
        ]
        orders.append(positions)
        for i, one in enumerate(orders):
            for other in orders[:i]:
                assert np.count_nonzero(one == other) < 8  # one fixed point is expected
                assert abs(np.corrcoef(one, other)[0, 1]) < 0.06

    def test_neighbours_in_the_order_are_not_neighbours_in_the_data(self) -> None:
        samples = VisitOrder(num_samples=10_000, run_seed=0, epoch=0).samples(np.arange(10_000))
        assert np.count_nonzero(np.abs(np.diff(samples)) == 1) < 12  # two are expected
        assert abs(np.corrcoef(samples[:-1], samples[1:])[0, 1]) < 0.06

    def test_small_orders_take_every_form(self) -> None:
        seen = {
            tuple(VisitOrder(num_samples=3, run_seed=seed, epoch=0).samples(np.arange(3))) for seed in range(200)
        }
        assert len(seen) == 6

    def test_shapes_are_kept(self) -> None:
        order = VisitOrder(num_samples=9, run_seed=0, epoch=0)
        assert order.samples(np.zeros((2, 3), int)).shape == (2, 3)
        assert order.samples(4).shape == ()
        assert order.samples([]).shape == (0,)

    @pytest.mark.parametrize("number", [-1, 9])
    def test_numbers_outside_are_refused(self, number: int) -> None:
        order = VisitOrder(num_samples=9, run_seed=0, epoch=0)
        for direction in (order.samples, order.positions):
            with pytest.raises(InputError, match=r"\[0, 9\)"):
                direction([0, number])

    @pytest.mark.parametrize("num_samples", [0, -1])
    def test_no_samples_are_refused(self, num_samples: int) -> None:
        with pytest.raises(InputError, match="at least one sample"):
            VisitOrder(num_samples=num_samples, run_seed=0, epoch=0)

    def test_run_seeds_outside_64_bits_are_refused(self) -> None:
        with pytest.raises(InputError, match="run seed"):
            VisitOrder(num_samples=1, run_seed=2**64, epoch=0)


# Part of format 1: written down once, from the first version.
HASHES = [166201051, 434883415, 3833085998, 2306661025]
SEEDS = [[2446591994, 2338149184, 1185147594, 2904747622], [2958305883, 348845383, 1591724163]]
PAIRS = [3464329031697140136, 11256318644861216120]
ORDERS = [[6, 4, 2, 5, 0, 3, 7, 9, 8, 1], [219967, 1182069, 1079640, 459477]]
