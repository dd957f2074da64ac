"""A run at a glance, from files alone: made-up folders of every state, also damaged ones."""

from __future__ import annotations

import json
import os
import socket
import time
from pathlib import Path
from typing import Any

import pytest

from launcher.runs import reading as runs_reading
from launcher.runs.reading import Life, Standing, find_runs, read_run, read_tail


def make_run(
    path: Path, state: str | None = "running", steps: int = 30, plan: dict[str, Any] | None = None, **status: Any
) -> Path:
    """A run of 100 steps of 8 samples at 16 samples/s, whose loss falls by 0.1 a step."""
    path.mkdir(parents=True)
    told = {"host": socket.gethostname(), "cluster": "local", "batches": {"global_batch": 8}}
    told |= {"config": {"method": {"name": "clip"}, "data": {"name": "digits"}}, **(plan or {})}
    (path / "plan.json").write_text(json.dumps(told))
    (path / "config.yaml").write_text("method:\n  name: clip\noptim:\n  lr: 0.1\n")
    if state:
        facts = {"state": state, "job_id": "1", "total_steps": 100, "step": steps, "cause": None, **status}
        (path / "status.json").write_text(json.dumps(facts))
    lines = [
        {"step": step, "samples": 8 * step, "loss": 10 - 0.1 * step, "samples_per_s": 16.0}
        for step in range(1, steps + 1)
    ]
    (path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


@pytest.fixture
def alive(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every local job lives."""
    monkeypatch.setattr(runs_reading, "is_controller", lambda pid, logs: True)


@pytest.mark.usefixtures("alive")
def test_a_run_that_goes_on_has_loss_speed_and_time_left(tmp_path: Path) -> None:
    run = read_run(make_run(tmp_path / "a"), "a", {})
    assert (run.standing, run.step, run.total, run.job.words) == (Standing.running, 30, 100, "process 1")
    assert run.loss == pytest.approx(7.0) and run.smoothed == pytest.approx(7.95)  # of the last 20 lines
    assert run.speed == 16.0 and run.left_s == pytest.approx(70 * 8 / 16)
    assert (run.method, run.data) == ("clip", "digits")


@pytest.mark.parametrize(
    ("state", "jobs", "plan", "standing", "life"),
    [
        ("running", {}, {}, Standing.lost, Life.gone),
        ("failed", {}, {}, Standing.failed, Life.gone),
        ("preempted", {}, {}, Standing.preempted, Life.gone),
        ("completed", {}, {}, Standing.completed, Life.gone),
        ("running", {}, {"host": "elsewhere"}, Standing.running, Life.unknown),
        ("running", {"1": "RUNNING"}, {"cluster": "slurm"}, Standing.running, Life.alive),
        ("preempted", {"1": "PENDING"}, {"cluster": "slurm"}, Standing.queued, Life.waiting),
        ("queued", {"1": "PENDING"}, {"cluster": "slurm"}, Standing.queued, Life.waiting),
        ("running", {}, {"cluster": "slurm"}, Standing.lost, Life.gone),
        ("preempted", None, {"cluster": "slurm"}, Standing.preempted, Life.unknown),
        ("running", None, {"cluster": "slurm"}, Standing.running, Life.unknown),
        (None, {}, {}, Standing.lost, Life.gone),
    ],
)
def test_the_state_is_that_of_the_files_unless_the_job_tells_otherwise(
    tmp_path: Path, state: str | None, jobs: dict[str, str] | None, plan: dict[str, str], standing: Standing, life: Life
) -> None:
    run = read_run(make_run(tmp_path / "a", state, plan=plan), "a", jobs)
    assert (run.standing, run.job.life) == (standing, life)
    assert (standing is Standing.lost) == bool(run.cause)


@pytest.mark.parametrize("content", ["{", "[]", "", '{"step": "x", "state": "running"}'])
def test_a_damaged_run_says_so_and_may_live(tmp_path: Path, content: str) -> None:
    folder = make_run(tmp_path / "a")
    (folder / "status.json").write_text(content)
    run = read_run(folder, "a", {})
    assert run.standing is Standing.damaged and run.cause and run.may_live


def test_lines_that_are_cut_or_no_records_are_left_out(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "a", steps=3)
    with (folder / "metrics.jsonl").open("ab") as stream:
        stream.write(
            b'{"step": 3, "eval/test/x": 1}\n\xff\x00\n[1]\n{"step": 4, "loss": "x"}\n{"step": 5, "loss": 1.0}'
        )
    assert [line["step"] for line in read_tail(folder / "metrics.jsonl")] == [1, 2, 3]
    assert [line["step"] for line in read_tail(folder / "metrics.jsonl", size=200)] == [3]


def test_runs_are_found_some_levels_deep_and_not_inside_of_runs(tmp_path: Path) -> None:
    for name in ("a", "group/b", "a/release/c", ".hidden/d", "1/2/3/4/5/too-deep"):
        make_run(tmp_path / name)
    os.symlink(tmp_path / "group", tmp_path / "link")
    (tmp_path / "nothing").mkdir()
    assert [path.relative_to(tmp_path).as_posix() for path in find_runs(tmp_path)] == ["a", "group/b"]


def test_three_hundred_long_runs_are_read_in_a_moment(tmp_path: Path) -> None:
    line = json.dumps({"step": 1, "samples": 8, "loss": 1.0, "samples_per_s": 16.0, "pad": "x" * 400}) + "\n"
    for number in range(300):
        (make_run(tmp_path / f"run-{number}", steps=1) / "metrics.jsonl").write_text(line * 400)
    began = time.process_time()
    assert len([read_run(path, path.name, {}) for path in find_runs(tmp_path)]) == 300
    assert time.process_time() - began < 3
