"""Quotas: every source gets its share of whole blocks to within a sample, whenever it is counted."""

from __future__ import annotations

import pickle
import time
from fractions import Fraction
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmpretrain.data.quotas import MOST_BLOCKS, Quotas, Stage, whole_shares

# Alike and far apart, and down to a ten-thousandth of all.
weights = st.one_of(st.integers(1, 20).map(Fraction), st.integers(1, 500).map(lambda n: Fraction(1, n)))
several = st.lists(weights, min_size=2, max_size=20)
blocks = st.sampled_from([1, 2, 3, 7, 64, 256])
quick = settings(max_examples=40, deadline=None)


def staged(block: int, parts: list[tuple[int, list[Fraction]]]) -> Quotas:
    """Stages of (length in blocks, weights)."""
    firsts = [sum(length for length, _ in parts[:at]) for at in range(len(parts))]
    return Quotas([Stage(first, whole_shares(w, block)) for first, (_, w) in zip(firsts, parts, strict=True)], block)


@quick
@given(several, blocks, st.integers(1, 80))
def test_counts_stay_within_a_sample_of_the_share(parts: list[Fraction], block: int, count: int) -> None:
    shares = whole_shares(parts, block)
    quotas, total = Quotas([Stage(0, shares)], block), [0] * len(parts)
    for number in range(count):
        given_ = quotas.of(number)
        assert sum(given_) == block and min(given_) >= 0
        total = [a + b for a, b in zip(total, given_, strict=True)]
        owed = [Fraction((number + 1) * block * share, sum(shares)) for share in shares]
        assert all(abs(have - want) < 1 for have, want in zip(total, owed, strict=True))
    assert quotas.before(count) == tuple(total)


def farthest(quotas: Quotas, blocks_: int) -> Fraction:
    """The largest difference between what a source was given and its share, after any block."""
    total = owed = [Fraction(0)] * len(quotas.stages[0].shares)
    found = Fraction(0)
    for number in range(blocks_):
        given_, shares = quotas.of(number), quotas.shares(number)
        assert sum(given_) == quotas.block and min(given_) >= 0
        assert not any(have for have, share in zip(given_, shares, strict=True) if not share)
        total = [a + b for a, b in zip(total, given_, strict=True)]
        owed = [a + quotas.block * share for a, share in zip(owed, shares, strict=True)]
        found = max(found, *(abs(have - want) for have, want in zip(total, owed, strict=True)))
    assert quotas.before(blocks_) == tuple(total)
    return found


@pytest.mark.parametrize(("least", "bound"), [(1, 1), (0, 4)])
def test_no_drift_at_the_borders_of_stages(least: int, bound: int) -> None:
    """Sources that end for a while leave fractions behind, which count when they come back; nothing adds up."""
    random = Random(least)
    for block in (1, 2, 7, 64):
        parts = []
        for _ in range(60):
            shares = [Fraction(random.randint(least, 9) * (least or random.randint(0, 1))) for _ in range(5)]
            parts.append((random.randint(1, 9), shares if sum(shares) else [Fraction(1)] * 5))
        assert farthest(staged(block, parts), sum(length for length, _ in parts)) <= bound


@settings(max_examples=8, deadline=None)
@given(st.lists(weights, min_size=2, max_size=6), st.sampled_from([7, 64]), st.integers(0, 10**12))
def test_any_block_is_found_without_those_before_it(parts: list[Fraction], block: int, far: int) -> None:
    shares = whole_shares(parts, block)
    quotas = Quotas([Stage(0, shares)], block)
    before, after = quotas.before(far), quotas.before(far + 1)
    assert tuple(b - a for a, b in zip(before, after, strict=True)) == quotas.of(far)
    owed = [Fraction(far * block * share, sum(shares)) for share in shares]
    assert all(abs(have - want) < 1 for have, want in zip(before, owed, strict=True))
    assert pickle.loads(pickle.dumps(quotas)).of(far) == quotas.of(far)


def test_what_decimals_say_is_exact() -> None:
    assert whole_shares([Fraction("0.7"), Fraction("0.3")], 128) == (7, 3)
    assert whole_shares([Fraction("0.123"), Fraction("1")], 128) == (123, 1000)
    assert whole_shares([Fraction(2), Fraction(0), Fraction(4)], 1) == (1, 0, 2)


def test_shares_with_long_periods_are_rounded_and_none_is_lost() -> None:
    parts = [Fraction(10**9 + 7), Fraction(10**9 + 9), Fraction(1)]
    shares = whole_shares(parts, 256)
    assert sum(shares) == MOST_BLOCKS * 256 and shares[2] == 1
    errors = [abs(Fraction(s, sum(shares)) - p / sum(parts)) for s, p in zip(shares, parts, strict=True)]
    assert max(errors) <= Fraction(1, MOST_BLOCKS * 256)


def test_the_state_far_ahead_costs_no_second() -> None:
    parts = [Fraction(10**9 + 7 * n * n) for n in range(20)]
    began = time.process_time()
    quotas = Quotas([Stage(0, whole_shares(parts, 256))], 256)
    assert sum(quotas.before(700_000_000 // 256)) == 700_000_000 // 256 * 256
    assert time.process_time() - began < 2  # 0.2 on a quiet core


@pytest.mark.parametrize("parts", [[Fraction(0), Fraction(0)], [Fraction(1), Fraction(-1, 2)]])
def test_weights_that_are_no_shares_are_refused(parts: list[Fraction]) -> None:
    with pytest.raises(ValueError, match="are no shares"):
        whole_shares(parts, 8)


@pytest.mark.parametrize("stages", [[], [Stage(1, (1, 1))], [Stage(0, (1, 1)), Stage(0, (1, 2))], [Stage(0, (0, 0))]])
def test_stages_that_do_not_follow_are_refused(stages: list[Stage]) -> None:
    with pytest.raises(ValueError, match="stage"):
        Quotas(stages, 8)
