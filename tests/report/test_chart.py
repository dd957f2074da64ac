"""Charts: what is drawn, what the pointer finds, what stands there in words."""

from __future__ import annotations

import numpy as np

from mmpretrain.report.chart import Curve, Panel, chart
from mmpretrain.report.metrics import Column


def curve(values: list[float], name: str = "loss", color: int = 0) -> Curve:
    """One line, logged at every step of 8 samples."""
    steps = np.arange(1, len(values) + 1, dtype=np.float64)
    return Curve(name, Column(steps, 8 * steps, np.array(values)), color, 0)


def test_a_line_runs_from_the_top_left_to_the_bottom_right() -> None:
    made = chart(Panel("Loss", [curve([4.0, 2.0, 0.0])], zero=True))
    assert made is not None
    (scale,) = made.scales
    assert scale.curves[0].line == "M333 0L667 500L1000 1000" and scale.labels[0] == (100.0, "0")
    assert made.points["curves"][0]["x"] == [8, 16, 24] and made.points["curves"][0]["y"] == ["4", "2", "0"]
    assert "from 4 to 0" in made.says and "over 24 samples" in made.says


def test_values_that_are_no_number_break_the_line() -> None:
    made = chart(Panel("Loss", [curve([4.0, float("nan"), 2.0, 0.0])]))
    assert made is not None and made.scales[0].curves[0].line.count("M") == 2
    assert [style for style, _ in made.broken] == ["c0 r0"] and "no number" in made.says


def test_a_chart_with_one_huge_value_is_logarithmic_at_first() -> None:
    usual = chart(Panel("Norm", [curve([1.0] * 9 + [3.0])], log=True))
    spiked = chart(Panel("Norm", [curve([1.0] * 9 + [900.0])], log=True))
    negative = chart(Panel("Loss", [curve([-1.0, -2.0])], log=True))
    assert usual is not None and spiked is not None and negative is not None
    assert [len(made.scales) for made in (usual, spiked, negative)] == [2, 2, 1]
    assert [made.log_first for made in (usual, spiked, negative)] == [False, True, False]


def test_colors_come_again_as_dashes_and_nothing_makes_no_chart() -> None:
    made = chart(Panel("Loss", [curve([1.0, 2.0], f"run {n}", n) for n in (0, 10)]))
    assert made is not None and [style for style, _ in made.legend] == ["c0 r0", "c0 r0 d1"]
    assert chart(Panel("Loss", [])) is None and chart(Panel("Loss", [curve([float("nan")])])) is None
