"""Columns of metrics.jsonl."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from mmpretrain.report.metrics import read_metrics
from tests.report.made_up import line


def written(path: Path, *lines: str) -> Path:
    """A file of these lines, the last one unfinished."""
    path.write_text("\n".join(lines))
    return path


def test_numbers_become_columns_over_samples(tmp_path: Path) -> None:
    """Values that are no numbers stay gaps; texts and flags are no columns."""
    lines = [line(1), line(2, loss=None), line(3, loss=float("nan")), {"step": 2, "eval/test/x": 0.5, "why": "a"}]
    found = read_metrics(written(tmp_path / "m", *map(json.dumps, lines), ""), 8)
    loss, evaluated = found.columns["loss"], found.columns["eval/test/x"]
    np.testing.assert_array_equal(loss.samples, [8, 16, 24])
    np.testing.assert_array_equal(loss.values, [4.0, np.nan, np.nan])
    assert evaluated.samples.tolist() == [16] and "why" not in found.columns and "step" not in found.columns
    assert found.damaged == 0 and not read_metrics(tmp_path / "none", None).columns


def test_of_a_step_that_was_done_again_the_later_line_counts(tmp_path: Path) -> None:
    lines = [line(1), line(2), line(3), line(2, loss=7.0), line(3, loss=8.0), ""]
    found = read_metrics(written(tmp_path / "m", *(json.dumps(entry) if entry else "" for entry in lines)), None)
    assert found.columns["loss"].values.tolist() == [4.0, 7.0, 8.0]
    assert found.columns["loss"].samples.tolist() == [8, 16, 24]  # from what the lines say


def test_damaged_lines_are_counted_and_an_unfinished_last_one_is_none(tmp_path: Path) -> None:
    whole = json.dumps(line(1))
    lines = [whole, '{"step": 2, "lo\x00', "[1, 2]", '{"loss": 1}', json.dumps(line(3)), '{"step": 4, "loss"']
    found = read_metrics(written(tmp_path / "m", *lines), 8)
    assert found.damaged == 3 and found.columns["loss"].steps.tolist() == [1, 3]
