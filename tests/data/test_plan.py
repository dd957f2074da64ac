"""The plan: every sample once per epoch, whatever reads it, and nothing but a function of its arguments."""

from __future__ import annotations

import pickle
import time
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmpretrain.data.plan import Plan

sizes = st.lists(st.integers(0, 9), min_size=1, max_size=12).filter(sum)
plans = st.builds(
    Plan,
    shard_sizes=sizes.map(tuple),
    seed=st.integers(-(2**70), 2**70),
    window=st.integers(1, 14),
    global_batch=st.sampled_from([12, 24, 60]),
)
quick = settings(max_examples=60, deadline=None)


@quick
@given(plans, st.integers(0, 5))
def test_each_epoch_is_a_permutation(plan: Plan, epoch: int) -> None:
    size = plan.epoch_size
    assert sorted(plan.samples(epoch * size, (epoch + 1) * size)) == list(range(size))


@quick
@given(plans, st.integers(0, 40), st.sampled_from([1, 2, 3, 4]))
def test_ranks_cut_the_global_batch_into_slices(plan: Plan, step: int, world_size: int) -> None:
    shares = [plan.slice(step, rank, world_size) for rank in range(world_size)]
    whole = np.arange(step * plan.global_batch, (step + 1) * plan.global_batch)
    assert np.array_equal(np.concatenate([positions for positions, _ in shares]), whole)
    assert np.array_equal(np.concatenate([ordinals for _, ordinals in shares]), plan.samples(whole[0], whole[-1] + 1))
    assert {len(ordinals) for _, ordinals in shares} == {plan.global_batch // world_size}


@quick
@given(plans, st.integers(0, 100), st.integers(0, 100))
def test_any_range_equals_its_single_positions(plan: Plan, start: int, length: int) -> None:
    assert plan.samples(start, start + length).tolist() == [plan.sample(p) for p in range(start, start + length)]


@quick
@given(plans, st.integers(0, 200))
def test_order_does_not_depend_on_what_was_asked_before(plan: Plan, position: int) -> None:
    fresh = Plan(plan.shard_sizes, plan.seed, plan.window, plan.global_batch)
    plan.samples(0, 50)
    assert plan.sample(position) == fresh.sample(position) == pickle.loads(pickle.dumps(plan)).sample(position)


@quick
@given(plans, st.integers(0, 60))
def test_shards_ahead_hold_the_samples_ahead(plan: Plan, position: int) -> None:
    shard_of = np.repeat(np.arange(len(plan.shard_sizes)), plan.shard_sizes)
    ahead = plan.shards_ahead(position, windows=3)
    assert len(ahead) == len(set(ahead))
    assert shard_of[plan.sample(position)] in ahead[: plan.window]


@quick
@given(plans, st.integers(0, 60), st.integers(0, 12))
def test_substitutes_are_samples_and_repeatable(plan: Plan, position: int, attempt: int) -> None:
    substitute = plan.substitute(position, attempt)
    assert 0 <= substitute < plan.epoch_size
    assert substitute == pickle.loads(pickle.dumps(plan)).substitute(position, attempt)


def test_early_substitutes_come_from_the_same_window_and_differ() -> None:
    plan = Plan((50,) * 20, seed=1, window=2, global_batch=10)
    near = set(plan.shards_ahead(310, windows=1))
    drawn = [plan.substitute(310, attempt) for attempt in range(8)]
    assert {ordinal // 50 for ordinal in drawn} <= near
    assert len(set(drawn)) > 4
    assert {plan.substitute(310, attempt) // 50 for attempt in range(8, 40)} - near


def test_samples_of_a_window_come_together() -> None:
    plan = Plan((10,) * 12, seed=3, window=4, global_batch=8)
    for start in range(0, 240, 40):
        assert len({ordinal // 10 for ordinal in plan.samples(start, start + 40)}) == 4


def test_epochs_seeds_and_windows_differ() -> None:
    def order(seed: int, window: int, epoch: int) -> tuple[int, ...]:
        return tuple(Plan((20,) * 5, seed, window, 10).samples(100 * epoch, 100 * (epoch + 1)))

    assert len({order(s, w, e) for s in (0, 1) for w in (1, 2, 5) for e in (0, 1, 2)}) == 18


def test_order_is_pinned() -> None:
    """A change here breaks the resume of every run that exists."""
    plan = Plan((3, 0, 5, 2), seed=7, window=2, global_batch=4)
    assert plan.samples(0, 20).tolist() == [9, 8, 2, 0, 1, 7, 6, 5, 4, 3, 8, 9, 7, 4, 6, 5, 1, 0, 3, 2]


def test_a_batch_may_straddle_epochs_or_exceed_the_data() -> None:
    plan = Plan((4, 3), seed=0, window=2, global_batch=18)
    assert set(Counter(plan.slice(0, 0, 1)[1].tolist()).values()) == {2, 3}


def test_a_billion_samples_cost_nothing_at_the_start() -> None:
    began = time.process_time()
    plan = Plan((10_000,) * 100_000, seed=0, window=8, global_batch=4096)
    _, ordinals = plan.slice(500_000, 3, 8)  # in the third epoch
    assert len(set(ordinals.tolist())) == 512
    assert time.process_time() - began < 2


def test_shuffling_is_close_to_uniform() -> None:
    first = Counter(Plan((5, 5), seed, 2, 1).sample(0) for seed in range(2000))
    assert all(abs(count - 200) < 80 for count in first.values())
    assert len(first) == 10


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (((), 0, 1, 1), "no sample"),
        (((0, 0), 0, 1, 1), "no sample"),
        (((3,), 0, 0, 1), "at least 1"),
        (((3,), 0, 1, 0), "at least 1"),
    ],
)
def test_impossible_plans_are_refused(arguments: tuple[tuple[int, ...], int, int, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Plan(*arguments)


def test_impossible_requests_are_refused() -> None:
    plan = Plan((8,), 0, 1, 4)
    with pytest.raises(ValueError, match="not divisible by the 3 ranks"):
        plan.slice(0, 0, 3)
    with pytest.raises(ValueError, match="not a range"):
        plan.samples(-1, 3)
