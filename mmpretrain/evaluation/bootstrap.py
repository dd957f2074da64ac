"""Intervals of scores by the bootstrap: what would they be on other samples of the same kind?

The samples are drawn again with replacement, DRAWS times by a fixed seed, and a score's interval is the middle 95 % of
what it is on those draws (percentiles). Nothing is embedded or fitted again: a score is a mean or a median of outcomes
of single samples, and those are what is drawn. Scores that are not quite means (balanced accuracy, area under the ROC
curve, R2) give the outcomes of which they are the mean to first order. Samples of one group (the captions of a picture)
are drawn together. What training on other samples would change is not in it.
Shapes: n samples, u units that are drawn, S scores, r draws at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from threadpoolctl import threadpool_limits

DRAWS = 1000
LEVELS = (2.5, 97.5)  # percent
SEED = 0
BLOCK = 2**20  # elements of the draws that are held at a time
LOW, HIGH = "low", "high"


@dataclass(frozen=True)
class Measured:
    """A score and the outcomes of single samples that it is the mean of, or the median.

    outcomes: float64 [n]. groups: int [n], samples that are drawn together; None: each on its own. The value is kept
    beside them, since to add them up in another order would change its last digit.
    """

    value: float
    outcomes: np.ndarray
    groups: np.ndarray | None = None
    median: bool = False


def mean_of(outcomes: np.ndarray, groups: np.ndarray | None = None) -> Measured:
    """The mean of ``outcomes`` [n], measured."""
    values = np.asarray(outcomes, np.float64)
    return Measured(float(values.mean()), values, groups)


def intervals(measured: Mapping[str, Measured]) -> dict[str, float]:
    """``NAME/low`` and ``NAME/high`` of every score; none of a score of fewer than two units, or whose outcomes hold
    one that is not finite."""
    alike: dict[tuple[int, bytes], dict[str, Measured]] = {}
    for name, score in measured.items():
        key = len(score.outcomes), b"" if score.groups is None else score.groups.tobytes()
        alike.setdefault(key, {})[name] = score
    found: dict[str, float] = {}
    for scores in alike.values():
        found |= _intervals(scores)
    return found


def _intervals(scores: Mapping[str, Measured]) -> dict[str, float]:
    """Of scores over the same samples."""
    first = next(iter(scores.values()))
    size = len(first.outcomes)
    units = np.arange(size) if first.groups is None else np.unique(first.groups, return_inverse=True)[1]
    count = int(units.max()) + 1 if size else 0
    if count < 2:
        return {}
    medians = {name: score for name, score in scores.items() if score.median}
    means = {name: score for name, score in scores.items() if not score.median}
    sums = np.stack([np.bincount(units), *(np.bincount(units, score.outcomes) for score in means.values())], axis=1)
    drawn: dict[str, list[np.ndarray]] = {name: [] for name in scores}
    for weights in draws(count):
        # The last digit of a product depends on the number of threads, which is not the same everywhere.
        with threadpool_limits(1, user_api="blas"):
            sizes, *totals = (weights @ sums).T
        for name, total in zip(means, totals, strict=True):
            drawn[name].append(total / sizes)
        for name, score in medians.items() if first.groups is not None else ():
            drawn[name].append(drawn_medians(score, weights, units))
    if first.groups is None:
        drawn |= {name: [_medians_alone(score.outcomes)] for name, score in medians.items()}
    edges = {name: np.percentile(np.concatenate(parts), LEVELS) for name, parts in drawn.items()}
    return {
        f"{name}/{side}": float(edge)
        for name, pair in edges.items()
        if np.isfinite(pair).all()
        for side, edge in zip((LOW, HIGH), pair, strict=True)
    }


def draws(count: int) -> Iterator[np.ndarray]:
    """float64 [r, u]: how often each unit is in a draw; the same for every score of as many units."""
    generator = np.random.default_rng(SEED)
    rows = max(1, BLOCK // count)
    for start in range(0, DRAWS, rows):
        size = min(rows, DRAWS - start)
        drawn = generator.integers(0, count, size=(size, count), dtype=np.int64)
        drawn += np.arange(size)[:, None] * count
        yield np.bincount(drawn.ravel(), minlength=size * count).reshape(size, count).astype(np.float64)


def _medians_alone(outcomes: np.ndarray) -> np.ndarray:
    """[DRAWS]: the median of ``outcomes`` [n] drawn again one by one.

    Nothing need be drawn but its place: the k-th smallest of n numbers of [0, 1] is distributed as Beta(k, n - k + 1).
    """
    generator, size, values = np.random.default_rng(SEED), len(outcomes), np.sort(outcomes)
    lower = (size + 1) // 2
    below = generator.beta(lower, size - lower + 1, DRAWS)
    # Of an even number the next one, which lies among the n - k that are larger.
    above = below if size % 2 else below + (1 - below) * generator.beta(1, size - lower, DRAWS)
    places = [np.minimum((side * size).astype(np.int64), size - 1) for side in (below, above)]
    return (values[places[0]] + values[places[1]]) / 2


def drawn_medians(score: Measured, weights: np.ndarray, units: np.ndarray) -> np.ndarray:
    """[r]: the score's median in each draw; weights: [r, u], units: the unit of each sample, [n]."""
    order = np.argsort(score.outcomes, kind="stable")
    values, reached = score.outcomes[order], np.cumsum(weights[:, units[order]], axis=1)
    total = reached[:, -1:]
    below, above = ((reached <= edge).sum(axis=1) for edge in ((total - 1) // 2, total // 2))
    return (values[below] + values[above]) / 2
