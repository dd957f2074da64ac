"""A permutation of any number of samples that is never held in memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

ROUNDS = 8
SMALLEST_HALF = 3  # bits; with fewer, few different permutations would come of all the seeds
_STREAM = 0x5348554646
"""Second word of the key, so that these bits are not those of a training's plan with the same seed."""


@dataclass(frozen=True)
class Shuffled:
    """The samples 0, 1, ..., count - 1 in an order that only ``seed`` and ``count`` decide.

    Place p holds sample E(p): a Feistel network of 8 rounds over the least even number of bits that ``count`` fits
    into (at least 6), applied again while the result is not below ``count``. Round r replaces the halves (a, b) by
    (b, a xor f(b + k_r)); f is the upper half of SplitMix64's output function, k_r the r-th word of Philox with the
    key (seed, 0x5348554646). Any place is found at once, whatever the count.
    """

    count: int
    seed: int

    def __call__(self, places: np.ndarray) -> np.ndarray:
        """The samples at these places: int64 [n] -> int64 [n]."""
        half = max(SMALLEST_HALF, (max(self.count - 1, 1).bit_length() + 1) // 2)
        key = np.array([self.seed % 2**64, _STREAM], dtype=np.uint64)
        words = np.random.Philox(key=key).random_raw(ROUNDS)
        found = _encrypted(places.astype(np.uint64), words, half)
        while len(outside := np.flatnonzero(found >= self.count)):
            found[outside] = _encrypted(found[outside], words, half)
        return found.astype(np.int64)


def in_place(places: np.ndarray) -> np.ndarray:
    """The order that changes nothing."""
    return places


Order = Callable[[np.ndarray], np.ndarray]
"""Places in the new data set -> which samples lie there: int64 [n] -> int64 [n]."""


def _encrypted(values: np.ndarray, words: np.ndarray, half: int) -> np.ndarray:
    """A bijection of the numbers below 2^(2 * half): uint64 [n] -> uint64 [n]."""
    bits, mask = np.uint64(half), np.uint64((1 << half) - 1)
    left, right = values >> bits, values & mask
    for word in words:
        left, right = right, left ^ (_mixed(right + word) >> np.uint64(64 - half))
    return (left << bits) | right


def _mixed(words: np.ndarray) -> np.ndarray:
    """The output function of SplitMix64 (see mmpretrain/data/random.py, whose torch is not wanted here)."""
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return words ^ (words >> np.uint64(31))
