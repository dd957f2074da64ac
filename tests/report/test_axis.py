"""Ticks and numbers."""

from __future__ import annotations

import numpy as np
import pytest

from mmpretrain.report.axis import count, duration, exponent, log_axis, percent, plain_axis, short, span_axis


@pytest.mark.parametrize("ends", [(0.0, 1.0), (-3e-9, 7e-9), (1e300, 1.5e300), (2.0, 2.0), (0.0, 0.0), (-1e308, 1e308)])
def test_the_ticks_of_an_axis_are_few_and_hold_all_values(ends: tuple[float, float]) -> None:
    axis = plain_axis(*ends)
    places = axis.place(np.array(ends))
    assert 2 <= len(axis.ticks) <= 9 and np.isfinite(places).all()
    assert places.min() >= -1e-9 and places.max() <= 1 + 1e-9


def test_an_axis_of_samples_ends_where_they_end() -> None:
    axis = span_axis(0, 51_200, 4)
    assert (axis.low, axis.high, axis.ticks) == (0, 51_200, (0, 20_000, 40_000))


def test_a_logarithmic_axis_has_powers_of_ten_or_round_steps() -> None:
    wide, narrow = log_axis(3e-7, 2e3), log_axis(14.0, 15.0)
    assert wide is not None and narrow is not None and log_axis(0.0, 1.0) is None
    assert all(round(np.log10(tick), 6).is_integer() for tick in wide.ticks) and len(wide.ticks) <= 8
    assert narrow.low <= 14 and narrow.high >= 15 and len(narrow.ticks) >= 2
    assert np.isnan(wide.place(np.array([0.0, -1.0]))).all()


def test_numbers_are_short() -> None:
    numbers = (0, 0.25, 1500, 3.2e6, 0.0003, 1e20, float("nan"), float("-inf"))
    assert [short(number) for number in numbers] == ["0", "0.25", "1.5k", "3.2M", "3e-4", "1e20", "nan", "-inf"]
    assert [percent(0.125), count(1234567), exponent(0.0015)] == ["12.5%", "1,234,567", "1.5e-3"]
    assert [duration(m) for m in (0.5, 12, 200, 3200)] == ["30 s", "12 min", "3 h 20 min", "2 d 5 h"]
