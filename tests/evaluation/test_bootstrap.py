"""Intervals: against formulas, against drawing and scoring again, and of groups."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from mmpretrain.evaluation.bootstrap import Measured, intervals, mean_of
from mmpretrain.evaluation.probe_scores import area, balanced, several_answers, value_answers


def edges(score: Measured) -> tuple[float, float]:
    found = intervals({"x": score})
    return found["x/low"], found["x/high"]


def drawn_again(size: int, score: Callable[[np.ndarray], float]) -> tuple[float, float]:
    """Percentiles of ``score`` of rows that are drawn again, the plain way."""
    draw = np.random.default_rng(1)
    values = [score(draw.integers(0, size, size)) for _ in range(1000)]
    return tuple(np.percentile(values, (2.5, 97.5)))


def test_the_interval_of_a_share_is_as_wide_as_theory_says() -> None:
    low, high = edges(mean_of(np.arange(1000) < 300))
    width = 1.96 * (0.3 * 0.7 / 1000) ** 0.5
    assert (low, high) == pytest.approx((0.3 - width, 0.3 + width), abs=0.004)
    assert edges(mean_of(np.arange(1000) < 300)) == (low, high)


def test_the_interval_of_a_median_is_that_of_drawing_again() -> None:
    ranks = np.random.default_rng(0).integers(1, 60, 201).astype(float)
    score = Measured(float(np.median(ranks)), ranks, median=True)
    assert edges(score) == pytest.approx(drawn_again(201, lambda rows: float(np.median(ranks[rows]))), abs=2.1)
    each = Measured(score.value, ranks, np.arange(201), median=True)  # groups of one
    assert edges(score) == pytest.approx(edges(each), abs=2.1)
    even = Measured(1.5, np.array([1.0, 2.0]), median=True)
    assert set(edges(even)) == {1.0, 2.0}


def test_samples_of_one_group_are_drawn_together() -> None:
    outcomes = np.repeat(np.arange(100) < 30, 5)
    alone, together = edges(mean_of(outcomes)), edges(mean_of(outcomes, np.repeat(np.arange(100), 5)))
    once = edges(mean_of(np.arange(100) < 30))
    assert together == pytest.approx(once, abs=1e-12)
    assert together[1] - together[0] == pytest.approx(5**0.5 * (alone[1] - alone[0]), rel=0.15)


def test_one_unit_and_what_is_not_finite_have_no_interval() -> None:
    assert intervals({"one": mean_of(np.ones(1)), "group": mean_of(np.ones(4), np.zeros(4, int))}) == {}
    assert intervals({"nan": Measured(0.5, np.array([0.0, np.nan, 1.0]))}) == {}
    assert intervals({}) == {}


def test_scores_that_are_no_means_have_nearly_the_interval_of_scoring_again() -> None:
    draw = np.random.default_rng(0)
    labels = draw.choice(3, 400, p=[0.6, 0.3, 0.1])
    answers = np.where(draw.random(400) < 0.6, labels, draw.integers(0, 3, 400))
    positive, shown = labels == 0, draw.normal(size=400) + (labels == 0)
    several = (draw.random((400, 4)) < 0.4).astype(np.int64)
    probability = np.clip(0.6 * several + draw.random((400, 4)) * 0.6, 0, 1)
    values, guesses = labels + draw.normal(size=400), labels + 0.2
    found = area(shown, positive)
    assert found is not None
    pairs = {
        "balanced": (
            balanced(answers == labels, labels)["balanced_accuracy"],
            lambda rows: _recall(labels[rows], (answers == labels)[rows]),
        ),
        "area": (found, lambda rows: _area(positive[rows], shown[rows])),
        "f1": (
            several_answers(probability, several)["f1_micro"],
            lambda rows: _f1(several[rows], probability[rows] >= 0.5),
        ),
        "r2": (value_answers(guesses, values, values)["r2"], lambda rows: _r2(values[rows], guesses[rows])),
    }
    for name, (score, again) in pairs.items():
        assert isinstance(score, Measured) and score.outcomes.mean() == pytest.approx(score.value), name
        low, high = drawn_again(400, again)
        assert edges(score) == pytest.approx((low, high), abs=0.1 * (high - low)), name


# Written down plainly: scikit-learn, which test_probe_scores.py compares with, is too slow for a thousand draws.
def _recall(labels: np.ndarray, right: np.ndarray) -> float:
    return float((np.bincount(labels, right) / np.bincount(labels)).mean())


def _area(positive: np.ndarray, shown: np.ndarray) -> float:
    return float((shown[positive][:, None] > shown[~positive]).mean())


def _f1(truth: np.ndarray, answers: np.ndarray) -> float:
    return float(2 * (truth * answers).sum() / (truth.sum() + answers.sum()))


def _r2(values: np.ndarray, guesses: np.ndarray) -> float:
    return float(1 - ((values - guesses) ** 2).mean() / values.var())
