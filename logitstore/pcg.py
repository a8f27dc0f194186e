"""PCG32, the seeds of views, and the visit order: pure integer functions of what they are given.

All arithmetic is modulo 2**64 on ``uint64``. The three functions ``pcg32_init``, ``pcg32_next`` and ``absorb`` are
written so that one definition serves numpy arrays (here) and numba scalars (``logitstore.views`` compiles them).
Nothing here keeps state, and nothing draws from another generator.

Source: M. O'Neill, "PCG: A Family of Simple Fast Space-Efficient Statistically Good Algorithms for Random Number
Generation" (2014), the XSH-RR 64/32 member.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

from logitstore.errors import InputError

U64 = NDArray[np.uint64]

MULTIPLIER = np.uint64(6364136223846793005)
INCREMENT = np.uint64(1442695040888963407)
_LOW32 = np.uint64(0xFFFFFFFF)
_ONE, _18, _27, _31, _32, _59 = (np.uint64(n) for n in (1, 18, 27, 31, 32, 59))

# First word of every hash: what is hashed. Values are part of store format 1.
SEED_DOMAIN = 0x73656564  # "seed"
ORDER_DOMAIN = 0x6F726472  # "ordr"
PAIR_DOMAIN = 0x70616972  # "pair"
_ORDER_ROUNDS = 8


def pcg32_next(state, inc):  # type: ignore[no-untyped-def]
    """One step of PCG32: ``(state, inc)`` -> ``(next state, 32 random bits)``, all ``uint64``."""
    shifted = (((state >> _18) ^ state) >> _27) & _LOW32
    rotation = state >> _59
    bits = ((shifted >> rotation) | (shifted << ((_32 - rotation) & _31))) & _LOW32
    return state * MULTIPLIER + inc, bits


def pcg32_init(seed, stream):  # type: ignore[no-untyped-def]
    """The generator's start ``(state, inc)`` from a seed and a stream number, as in the reference implementation."""
    inc = (stream << _ONE) | _ONE
    return (inc + seed) * MULTIPLIER + inc, inc


def absorb(state, word):  # type: ignore[no-untyped-def]
    """Mix one 32-bit word into a hash state: an LCG step, then its high half folded into the low one."""
    state = (state ^ word) * MULTIPLIER + INCREMENT
    return state ^ (state >> _32)


def pcg32_hash(*words: ArrayLike) -> NDArray[np.uint32]:
    """Hash of 32-bit words, elementwise over broadcast arrays.

    Args:
        words: integers in [0, 2**32), scalars or arrays; the first names the domain.

    Returns:
        uint32 array of the broadcast shape (0-d for scalars).
    """
    state = np.zeros(np.broadcast_shapes(*(np.shape(word) for word in words)), np.uint64)
    with np.errstate(over="ignore"):
        for word in words:
            state = absorb(state, np.asarray(word).astype(np.uint64))
        for _ in range(2):
            state = absorb(state, np.uint64(0))
        return np.asarray(pcg32_next(state, INCREMENT)[1]).astype(np.uint32)


def _words(value: int, name: str) -> tuple[int, int]:
    if not 0 <= value < 1 << 64:
        raise InputError(f"{name} must lie in [0, 2**64), got {value}.")
    return value & 0xFFFFFFFF, value >> 32


def view_seeds(run_seed: int, epoch: int, samples: ArrayLike) -> NDArray[np.uint32]:
    """Seeds of views, a function of (run seed, epoch, sample) alone.

    Args:
        run_seed: the store's run seed, in [0, 2**64).
        epoch: number of the epoch, from 0.
        samples: sample numbers, any shape.

    Returns:
        uint32 array of the shape of ``samples``.
    """
    samples = np.asarray(samples, np.uint64)
    return pcg32_hash(SEED_DOMAIN, *_words(run_seed, "run seed"), epoch, samples & _LOW32, samples >> _32)


def pair_seeds(even: ArrayLike, odd: ArrayLike) -> NDArray[np.uint64]:
    """64-bit seeds of the mixing draws that two neighbours share: a hash of the ordered pair of their view seeds."""
    low, high = (pcg32_hash(PAIR_DOMAIN, half, even, odd).astype(np.uint64) for half in (0, 1))
    return low | (high << _32)


@dataclass(frozen=True, kw_only=True)
class VisitOrder:
    """The permutation in which one epoch visits the samples: a keyed Feistel network with cycle walking.

    Constant memory, evaluated anywhere in both directions. N = 1, 2, 3 work.
    """

    num_samples: int
    """N, at least 1."""
    run_seed: int
    """The store's run seed, in [0, 2**64)."""
    epoch: int
    """Number of the epoch, from 0."""

    def __post_init__(self) -> None:
        if self.num_samples < 1:
            raise InputError(f"A visit order needs at least one sample, got {self.num_samples}.")
        _words(self.run_seed, "run seed")

    @cached_property
    def half_bits(self) -> np.uint64:
        """Bits in each half of the Feistel network: it permutes the numbers of twice as many."""
        return np.uint64(max(1, ((self.num_samples - 1).bit_length() + 1) // 2))

    @cached_property
    def keys(self) -> tuple[np.uint64, ...]:
        """The keys of its rounds."""
        keys = pcg32_hash(ORDER_DOMAIN, *_words(self.run_seed, "run seed"), self.epoch, np.arange(_ORDER_ROUNDS))
        return tuple(keys.astype(np.uint64))

    def samples(self, positions: ArrayLike) -> NDArray[np.int64]:
        """Sample numbers at the given positions; int64, same shape. Positions must lie in [0, N)."""
        return self._walk(positions, self._forward)

    def positions(self, samples: ArrayLike) -> NDArray[np.int64]:
        """Positions of the given samples: the inverse of ``samples``."""
        return self._walk(samples, self._backward)

    def _round(self, half: U64, key: np.uint64) -> U64:
        mask = (_ONE << self.half_bits) - _ONE
        state = absorb(absorb(half ^ (key << _32), key), half)
        return (state >> _32) & mask  # type: ignore[no-any-return]

    def _forward(self, value: U64) -> U64:
        mask = (_ONE << self.half_bits) - _ONE
        left, right = value >> self.half_bits, value & mask
        for key in self.keys:
            left, right = right, left ^ self._round(right, key)
        return (left << self.half_bits) | right

    def _backward(self, value: U64) -> U64:
        mask = (_ONE << self.half_bits) - _ONE
        left, right = value >> self.half_bits, value & mask
        for key in reversed(self.keys):
            left, right = right ^ self._round(left, key), left
        return (left << self.half_bits) | right

    def _walk(self, values: ArrayLike, step: object) -> NDArray[np.int64]:
        numbers = np.atleast_1d(np.asarray(values, np.int64))
        if numbers.size and (numbers.min() < 0 or numbers.max() >= self.num_samples):
            raise InputError(f"Positions and samples must lie in [0, {self.num_samples}).")
        assert callable(step)
        current = step(numbers.astype(np.uint64).ravel())
        bound = np.uint64(self.num_samples)
        # Cycle walking: the network permutes a power of four; values beyond N walk on until they fall below N.
        while (outside := np.flatnonzero(current >= bound)).size:
            current[outside] = step(current[outside])
        return current.astype(np.int64).reshape(np.shape(values))  # type: ignore[no-any-return]
