"""The order of a mixture: every source once per epoch of its own, in exact shares, as a function of the position."""

from __future__ import annotations

import pickle
import time
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmpretrain.data.mixture import MixedSource, Mixture
from mmpretrain.data.plan import Plan
from mmpretrain.data.seeds import sub_seed

quick = settings(max_examples=30, deadline=None)
sizes = st.lists(st.integers(0, 6), min_size=1, max_size=5).filter(sum).map(tuple)
stages = st.lists(st.integers(1, 12), min_size=1, max_size=3)


@st.composite
def mixtures(draw: st.DrawFn) -> Mixture:
    """Two to five sources, with up to three stages."""
    sources = []
    for name in "abcde"[: draw(st.integers(2, 5))]:
        weights = tuple((40 * at, Fraction(weight, 4)) for at, weight in enumerate(draw(stages)))
        sources.append(MixedSource(name, draw(sizes), weights))
    seed, batch = draw(st.integers(-(2**70), 2**70)), draw(st.sampled_from([12, 24]))
    return Mixture(tuple(sources), seed, draw(st.integers(1, 4)), batch)


@quick
@given(mixtures())
def test_each_source_comes_in_the_order_of_its_own_plan(mixture: Mixture) -> None:
    ordinals = mixture.samples(0, 300)
    of, first = mixture.source_of(ordinals), 0
    for number, source in enumerate(mixture.sources):
        own = ordinals[of == number] - first
        size = sum(source.shard_sizes)
        assert all(sorted(own[at : at + size]) == list(range(size)) for at in range(0, len(own) - size + 1, size))
        assert mixture.by_source(300)[source.name] == (len(own), size)
        first += size


@quick
@given(mixtures(), st.integers(0, 12), st.sampled_from([1, 2, 3, 4]))
def test_ranks_cut_the_global_batch_into_slices(mixture: Mixture, step: int, world_size: int) -> None:
    shares = [mixture.slice(step, rank, world_size) for rank in range(world_size)]
    whole = np.arange(step * mixture.global_batch, (step + 1) * mixture.global_batch)
    assert np.array_equal(np.concatenate([positions for positions, _ in shares]), whole)
    expected = mixture.samples(int(whole[0]), int(whole[-1]) + 1)
    assert np.array_equal(np.concatenate([ordinals for _, ordinals in shares]), expected)


@quick
@given(mixtures(), st.integers(0, 200), st.integers(0, 60))
def test_any_range_equals_its_single_positions(mixture: Mixture, start: int, length: int) -> None:
    """Whatever was asked before, and in whichever process."""
    fresh = pickle.loads(pickle.dumps(mixture))
    whole = mixture.samples(start, start + length).tolist()
    assert whole == [fresh.sample(p) for p in range(start, start + length)]


@quick
@given(mixtures(), st.integers(0, 200), st.integers(0, 12))
def test_substitutes_are_of_the_same_source(mixture: Mixture, position: int, attempt: int) -> None:
    both = np.array([mixture.sample(position), mixture.substitute(position, attempt)])
    assert len(set(mixture.source_of(both).tolist())) == 1
    assert 0 <= both[1] < mixture.epoch_size


@quick
@given(mixtures(), st.integers(0, 200))
def test_shards_ahead_hold_the_samples_ahead(mixture: Mixture, position: int) -> None:
    shards = [size for source in mixture.sources for size in source.shard_sizes]
    shard_of = np.repeat(np.arange(len(shards)), shards)
    ahead = mixture.shards_ahead(position)
    assert len(ahead) == len(set(ahead))
    assert {int(shard_of[o]) for o in mixture.samples(position, position + 1)} <= set(ahead)


def test_another_source_leaves_the_order_inside_the_others_alone() -> None:
    a, b = MixedSource("a", (9, 5), ((0, Fraction(2)),)), MixedSource("b", (4, 4), ((0, Fraction(1)),))
    two, one = Mixture((a, b), 7, 1, 6), Plan((4, 4), sub_seed(7, 0, "source", "b"), 1, 6)
    ordinals = two.samples(0, 60)
    assert (ordinals[two.source_of(ordinals) == 1] - 14).tolist() == one.samples(0, 20).tolist()


def test_a_stage_starts_with_a_whole_batch() -> None:
    a = MixedSource("a", (50,), ((0, Fraction(1)), (13, Fraction(0))))
    mixture = Mixture((a, MixedSource("b", (50,), ((0, Fraction(1)),))), 0, 1, 8)
    of = mixture.source_of(mixture.samples(0, 40))
    assert [int((of[at : at + 8] == 0).sum()) for at in range(0, 40, 8)] == [4, 4, 0, 0, 0]
    assert [first for first, _ in mixture.stages()] == [0, 16]
    assert set(mixture.shards_ahead(16)) == {1}


def test_order_is_pinned() -> None:
    """A change here breaks the resume of every mixture that exists."""
    a, b = MixedSource("a", (3, 2), ((0, Fraction("0.7")),)), MixedSource("b", (4,), ((0, Fraction("0.3")),))
    mixture = Mixture((a, b), seed=7, window=2, global_batch=4)
    assert mixture.samples(0, 16).tolist() == [0, 5, 2, 1, 3, 4, 7, 0, 2, 1, 3, 8, 6, 4, 3, 1]
    assert mixture.facts == {"sources": {"a": 5, "b": 4}, "stages": [[0, [7, 3]]]}


def test_a_billion_samples_cost_nothing_at_the_start() -> None:
    began = time.process_time()
    large = MixedSource("a", (10_000,) * 60_000, ((0, Fraction(60_001)),))
    mixture = Mixture((large, MixedSource("b", (10_000,) * 40_000, ((0, Fraction(40_003)),))), 0, 8, 4096)
    _, ordinals = mixture.slice(700_000_000 // 4096, 3, 8)
    assert len(ordinals) == 512
    assert time.process_time() - began < 2


def test_impossible_mixtures_are_refused() -> None:
    with pytest.raises(ValueError, match="no sample"):
        Mixture((MixedSource("a", (0,), ((0, Fraction(1)),)),), 0, 1, 4)
    with pytest.raises(ValueError, match="are no shares"):
        Mixture((MixedSource("a", (3,), ((0, Fraction(1)), (8, Fraction(0)))),), 0, 1, 4)
    mixture = Mixture((MixedSource("a", (3,), ((0, Fraction(1)),)),), 0, 1, 4)
    with pytest.raises(ValueError, match="not divisible by the 3 ranks"):
        mixture.slice(0, 0, 3)
    with pytest.raises(ValueError, match="not a range"):
        mixture.samples(-1, 3)
