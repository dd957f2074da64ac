"""Whether a score changed: the paired bootstrap against a plain loop, and outcomes that survive a file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mmpretrain.evaluation.bootstrap import Measured, intervals, mean_of
from mmpretrain.evaluation.paired import change, load_outcomes, save_outcomes

DRAWS = np.random.default_rng(7)
HARD = DRAWS.random(200)


def test_pairs_tell_apart_what_two_intervals_do_not() -> None:
    before, after = mean_of(HARD > 0.5), mean_of(HARD > 0.45)
    edges = intervals({"before": before, "after": after})
    assert edges["before/high"] > edges["after/low"]  # the intervals overlap
    low, high = change(before, after) or (0.0, 0.0)
    assert 0 < low < after.value - before.value < high


def test_the_difference_of_a_score_and_itself_is_nothing() -> None:
    assert change(mean_of(HARD), mean_of(HARD)) == (0.0, 0.0)


def test_samples_of_a_group_are_drawn_together_as_by_a_plain_loop() -> None:
    groups = np.repeat(np.arange(40), 5)
    before, after = (mean_of(values, groups) for values in (HARD, HARD + np.repeat(DRAWS.normal(0.1, 0.3, 40), 5)))
    low, high = change(before, after) or (0.0, 0.0)
    differences = (after.outcomes - before.outcomes).reshape(40, 5).mean(1)
    plain = [differences[DRAWS.integers(0, 40, 40)].mean() for _ in range(4000)]
    assert np.allclose([low, high], np.percentile(plain, (2.5, 97.5)), atol=0.02)


def test_medians_are_compared_as_medians() -> None:
    ranks = np.arange(1.0, 102.0)
    before, after = Measured(51.0, ranks, None, True), Measured(26.0, ranks - 25, None, True)
    assert change(before, after) == (-25.0, -25.0)


@pytest.mark.parametrize(
    "after",
    [mean_of(HARD[:50]), mean_of(HARD, np.arange(200) // 2), Measured(0.5, HARD, None, True)],
    ids=["other samples", "other groups", "a median"],
)
def test_what_is_not_of_the_same_samples_is_not_compared(after: Measured) -> None:
    assert change(mean_of(HARD), after) is None


@pytest.mark.parametrize(("size", "told"), [(5, False), (6, True)])
def test_so_few_samples_that_chance_may_change_all_of_them_tell_nothing(size: int, told: bool) -> None:
    assert (change(mean_of(np.zeros(size)), mean_of(np.ones(size))) is not None) is told
    groups = np.repeat(np.arange(size), 4)
    assert (change(mean_of(np.zeros(4 * size), groups), mean_of(np.ones(4 * size), groups)) is not None) is told


def test_outcomes_survive_a_file(tmp_path: Path) -> None:
    scores = {
        "retrieval/a->b/recall@1": mean_of(HARD, np.arange(200) // 4),
        "retrieval/a->b/median_rank": Measured(3.0, HARD, None, True),
    }
    save_outcomes(tmp_path / "outcomes.npz", scores)
    found = load_outcomes(tmp_path / "outcomes.npz")
    assert list(found) == list(scores)
    for name, score in scores.items():
        same = (found[name].value, found[name].median) == (score.value, score.median)
        assert same and np.array_equal(found[name].outcomes, score.outcomes)
    assert np.array_equal(found["retrieval/a->b/recall@1"].groups, np.arange(200) // 4)  # type: ignore[arg-type]
