"""Progress is read while the file grows, and after it was rolled back."""

from __future__ import annotations

import io
import time
from pathlib import Path

import pytest
from rich.console import Console

from launcher.launching.progress import Bar, Lines, MetricsTail, Point, display
from mmpretrain.run_folder import append_line, drop_lines_after


def line(path: Path, step: int) -> None:
    """Log a training step."""
    append_line(path, {"step": step, "loss": 1.0, "samples_per_s": 100.0})


def test_the_newest_training_step_is_found_once(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    tail = MetricsTail(path)
    assert tail.latest() is None
    line(path, 1)
    line(path, 2)
    append_line(path, {"step": 2, "eval/test/accuracy": 0.5})
    assert tail.latest() == Point(2, 1.0, 100.0)
    assert tail.latest() is None
    with path.open("a") as stream:
        stream.write('{"step": 3, "loss": 2.0, "samples')  # the writer is in the middle of a line
        stream.flush()
        assert tail.latest() is None
        stream.write('_per_s": 9.0}\n')
    assert tail.latest() == Point(3, 2.0, 9.0)


def test_a_rolled_back_file_is_read_from_its_start(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    tail = MetricsTail(path)
    for step in range(1, 6):
        line(path, step)
    assert tail.latest() == Point(5, 1.0, 100.0)
    drop_lines_after(path, 3)
    line(path, 4)
    assert tail.latest() == Point(4, 1.0, 100.0)


def test_lines_are_rare_but_the_last_step_is_shown() -> None:
    out = io.StringIO()
    with display(Console(file=out), total=50, done=0) as screen:
        assert isinstance(screen, Lines)
        for step in range(1, 51):
            screen.show(Point(step, 0.5, 1234.5))
    assert out.getvalue() == "step 1/50  loss 0.5000  1,234 samples/s\nstep 50/50  loss 0.5000  1,234 samples/s\n"


def test_the_time_left_counts_from_where_a_resumed_run_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.StringIO()
    clock = iter((100.0, 120.0, 140.0))
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    lines = Lines(Console(file=out), total=50)
    for step in (41, 40, 45):  # the first was logged by the run before it was interrupted
        lines.show(Point(step, 1.0, 2.0))
    assert out.getvalue().splitlines() == [
        "step 41/50  loss 1.0000  2 samples/s",
        "step 40/50  loss 1.0000  2 samples/s",
        "step 45/50  loss 1.0000  2 samples/s  ETA 0:00:20",
    ]


def test_a_terminal_gets_a_bar_with_time_left() -> None:
    out = io.StringIO()
    with display(Console(file=out, force_terminal=True, width=120), total=50, done=10) as screen:
        assert isinstance(screen, Bar)
        screen.show(Point(20, 0.5, 1234.5))
        screen.say("job RUNNING")
    assert "20/50" in out.getvalue() and "ETA" in out.getvalue() and "1,234 samples/s" in out.getvalue()
    assert "job RUNNING" in out.getvalue()


def test_a_file_that_cannot_be_read_has_nothing_new(tmp_path: Path) -> None:
    assert MetricsTail(tmp_path).latest() is None
