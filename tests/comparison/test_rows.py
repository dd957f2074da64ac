"""Scores of several models in one row, and when one of them is called better."""

from __future__ import annotations

import pytest

from mmpretrain.comparison.rows import Cell, Row, result_rows
from tests.comparison.results import made_up


def test_a_row_has_every_model_that_has_the_score() -> None:
    rows = result_rows(made_up(one=0.5, other=None, third=0.6))
    first = rows[0]
    assert (first.metric, first.subject, first.name) == ("retrieval", "left->caption", "recall@1")
    assert list(first.cells) == ["one", "third"] and first.chance == 0.2
    assert first.cells["one"] == Cell(0.5, 0.4, 0.6)
    assert [row.name for row in rows if row.is_main] == ["recall@1", "accuracy"]
    assert [row.metric for row in rows] == ["retrieval"] * 2 + ["linear_probe"] * 2


@pytest.mark.parametrize(
    ("name", "cells", "best"),
    [
        ("recall@1", {"a": Cell(0.9, 0.8, 1.0), "b": Cell(0.5, 0.4, 0.6)}, "a"),
        ("recall@1", {"a": Cell(0.6, 0.5, 0.7), "b": Cell(0.5, 0.4, 0.6)}, None),
        ("median_rank", {"a": Cell(9, 8, 10), "b": Cell(5, 4, 6)}, "b"),
        ("recall@1", {"a": Cell(0.9), "b": Cell(0.1)}, None),
        ("recall@1", {"a": Cell(0.9, 0.8, 1.0)}, None),
        # The second best value is not the one whose interval reaches furthest.
        ("recall@1", {"a": Cell(0.9, 0.8, 1.0), "b": Cell(0.5, 0.5, 0.5), "c": Cell(0.4, 0.0, 0.85)}, None),
    ],
)
def test_the_best_is_better_beyond_the_intervals(name: str, cells: dict[str, Cell], best: str | None) -> None:
    assert Row("retrieval", "a->b", name, cells, None).best == best
