"""Parts of a split by a hash of each key: a sample stays on its side when others come or go (no torch here)."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import accumulate
from typing import NamedTuple

import numpy as np

TOP = 2**64


class Side(NamedTuple):
    """The samples whose mixed hash lies in [low, high), of 0 to 2^64."""

    low: int
    high: int

    def of(self, hashes: np.ndarray) -> np.ndarray:
        """int64: the rows that are on this side. hashes: uint64 [samples], of keys."""
        mixed = _mixed(hashes)
        below = mixed < np.uint64(self.high) if self.high < TOP else np.ones(len(mixed), bool)
        return np.flatnonzero((mixed >= np.uint64(self.low)) & below)

    def meets(self, other: Side) -> bool:
        """Whether a hash can be on both."""
        return max(self.low, other.low) < min(self.high, other.high)


def sides(shares: Mapping[str, float]) -> dict[str, Side]:
    """Split -> its side; the first one by name begins at 0, since a config is the same in whatever order it has."""
    names = sorted(shares)
    ends = [min(int(end * TOP), TOP) for end in accumulate(shares[name] for name in names)]
    return {name: Side(low, high) for name, low, high in zip(names, [0, *ends], ends, strict=False)}


def rest(shares: Mapping[str, float]) -> Side:
    """The side of what is held out for no split."""
    return Side(max((side.high for side in sides(shares).values()), default=0), TOP)


def _mixed(hashes: np.ndarray) -> np.ndarray:
    """The hashes with all bits mixed (splitmix64's last step): similar keys must not lie side by side."""
    value = hashes.astype(np.uint64)
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))
