"""Long curves are short, and show every spike."""

from __future__ import annotations

import numpy as np
import pytest

from mmpretrain.report.metrics import Column
from mmpretrain.report.thinning import BUCKETS, thin


def column(values: np.ndarray) -> Column:
    """Logged at every step of 8 samples."""
    steps = np.arange(1, len(values) + 1, dtype=np.float64)
    return Column(steps, 8 * steps, values)


def test_no_spike_is_lost_and_both_ends_stay() -> None:
    values = np.random.default_rng(0).normal(size=100_000)
    values[[31_234, 77_777]] = 50.0, -50.0
    found = thin(column(values), smoothing=True)
    assert len(found.raw) <= 2 * BUCKETS + 1 and len(found.smoothed) <= BUCKETS
    assert found.raw[:, 1].max() == 50.0 and found.raw[:, 1].min() == -50.0
    assert found.raw[0, 0] < 8 * 1000 and found.raw[-1, 0] == 800_000 == found.smoothed[-1, 0]
    assert (np.diff(found.raw[:, 0]) > 0).all() and abs(found.smoothed[5:, 1]).max() < 1


def test_values_that_are_no_number_are_gaps_and_are_marked() -> None:
    values = np.ones(5000)
    values[2000:3000] = np.nan
    values[4999] = np.inf
    found = thin(column(values), smoothing=True)
    assert found.broken.min() == 8 * 2001 and found.broken.max() == 8 * 5000
    inside = (found.raw[:, 0] > 8 * 2001) & (found.raw[:, 0] < 8 * 3000)
    assert inside.any() and np.isnan(found.raw[inside, 1]).all()


@pytest.mark.parametrize("values", [[], [np.nan], [1.0], [np.inf, 2.0]])
def test_short_columns_stay_as_they_are(values: list[float]) -> None:
    made = np.array(values)
    found = thin(column(made), smoothing=False)
    finite = np.isfinite(made)
    assert np.isfinite(found.raw[:, 1]).sum() == finite.sum() and len(found.broken) == (~finite).sum()
