"""The order of a shuffle: a permutation that the seed alone decides, as random as a drawn one."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from shards.rewrite.order import Shuffled


@pytest.mark.parametrize("count", [1, 2, 3, 255, 256, 257, 1000, 65_537])
def test_every_sample_comes_once(count: int) -> None:
    """Whether or not the count is a power of two."""
    assert np.array_equal(np.sort(Shuffled(count, 7)(np.arange(count))), np.arange(count))


def test_the_order_is_written_down() -> None:
    """What was shuffled once is shuffled in the same way by every later version."""
    assert Shuffled(10, 0)(np.arange(10)).tolist() == [7, 6, 9, 3, 5, 0, 8, 1, 2, 4]
    assert Shuffled(10**12, 5)(np.array([0, 10**12 - 1])).tolist() == [442513371772, 840721726095]


def test_any_part_of_it_is_found_alone() -> None:
    """Each shard is planned where it is written."""
    order = Shuffled(5000, 3)
    whole = order(np.arange(5000))
    assert np.array_equal(order(np.arange(1234, 2345)), whole[1234:2345])
    assert not np.array_equal(whole, Shuffled(5000, 4)(np.arange(5000)))


def test_all_orders_of_four_are_equally_likely() -> None:
    """Chi square over 24 orders and 720 seeds; 49.7 is passed once in a thousand times."""
    found = Counter(tuple(Shuffled(4, seed)(np.arange(4)).tolist()) for seed in range(720))
    expected = 720 / 24
    assert len(found) == 24 and sum((n - expected) ** 2 / expected for n in found.values()) < 49.7


def test_neighbors_are_torn_apart() -> None:
    """The sample at each place, and the step to the next one, are unrelated to the place."""
    found = Shuffled(100_000, 1)(np.arange(100_000))
    assert abs(np.corrcoef(found, np.arange(100_000))[0, 1]) < 0.02
    assert abs(np.corrcoef(found[1:], found[:-1])[0, 1]) < 0.02
    assert np.abs(np.diff(found)).mean() == pytest.approx(100_000 / 3, rel=0.02)
