"""Long curves made as long as a screen is wide, without hiding a spike."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mmpretrain.report.metrics import Column
from mmpretrain.summary.smoothing import smooth

BUCKETS = 300


@dataclass(frozen=True)
class Thin:
    """What is drawn of a column. raw: [m, 2] of x and value, at most the least and the greatest value per bucket in
    their order, with a row of nan where values are missing. smoothed: [k, 2]. broken: x of values that are no number.
    """

    raw: np.ndarray
    smoothed: np.ndarray
    broken: np.ndarray


def thin(column: Column, *, smoothing: bool, buckets: int = BUCKETS) -> Thin:
    """At most ``buckets`` equal spans of x, with two points each."""
    x, y = column.samples, column.values
    finite = np.isfinite(y)
    if not finite.any():
        return Thin(np.zeros((0, 2)), np.zeros((0, 2)), _some(x, buckets))
    chosen = _extremes(x, y, finite, buckets)
    raw = np.column_stack([x[chosen], np.where(finite[chosen], y[chosen], np.nan)])
    mean = smooth(np.where(finite, y, np.nan)) if smoothing else np.where(finite, y, np.nan)
    ends = _ends(x, buckets) if smoothing else chosen
    line = np.column_stack([x[ends], mean[ends]])
    return Thin(raw, line, _some(x[~finite], buckets))


def _some(places: np.ndarray, most: int) -> np.ndarray:
    """At most ``most`` of ``places``, the first and the last among them."""
    return places[np.unique(np.linspace(0, len(places) - 1, most).round().astype(int))] if len(places) else places


def _bucket(x: np.ndarray, buckets: int) -> np.ndarray:
    """The number of the bucket of each x."""
    if len(x) <= 2 * buckets:
        return np.arange(len(x))
    span = float(x[-1] - x[0]) or 1.0
    return np.minimum(((x - x[0]) / span * buckets).astype(np.int64), buckets - 1)


def _ends(x: np.ndarray, buckets: int) -> np.ndarray:
    """The last row of each bucket."""
    return np.flatnonzero(np.diff(_bucket(x, buckets), append=-1))


def _extremes(x: np.ndarray, y: np.ndarray, finite: np.ndarray, buckets: int) -> np.ndarray:
    """Rows of the least and greatest value of each bucket, and of one that is no number, where it has such."""
    bucket = _bucket(x, buckets)
    starts = np.flatnonzero(np.diff(bucket, prepend=-1))
    order = np.arange(len(y))
    found = []
    for values in (np.where(finite, y, np.inf), np.where(finite, -y, np.inf)):
        least = np.repeat(np.minimum.reduceat(values, starts), np.diff(np.append(starts, len(y))))
        hits = np.where(values == least, order, len(y))
        found.append(np.minimum.reduceat(hits, starts))
    gaps = np.where(finite, len(y), order)
    found.append(np.minimum.reduceat(gaps, starts))
    rows = np.unique(np.concatenate(found))
    rows = np.append(rows[rows < len(y)], len(y) - 1)
    return np.unique(rows)
