"""Which runs a command means, and their order."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from launcher.runs import choice as runs_choice
from launcher.runs.choice import Order, below, chosen, named, ordered
from launcher.runs.reading import Standing
from launcher.slurm import client as slurm_client
from mmpretrain.console import CommandError
from tests.launcher.runs.test_reading import make_run


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Three runs: the oldest has the lowest loss and is the furthest."""
    for age, (name, state, steps) in enumerate(
        [("new", "failed", 10), ("group/middle", "completed", 20), ("old one", "preempted", 30)]
    ):
        folder = make_run(tmp_path / name, state, steps=steps)
        for file in ("metrics.jsonl", "status.json"):
            os.utime(folder / file, (1e9 - age, 1e9 - age))
    return tmp_path


@pytest.mark.parametrize(
    ("order", "names"),
    [
        (Order.age, ["new", "group/middle", "old one"]),
        (Order.name, ["group/middle", "new", "old one"]),
        (Order.loss, ["old one", "group/middle", "new"]),
        (Order.step, ["old one", "group/middle", "new"]),
        (Order.state, ["old one", "group/middle", "new"]),
    ],
)
def test_runs_are_ordered(root: Path, order: Order, names: list[str]) -> None:
    assert [run.name for run in ordered(below(root), order)] == names


def test_runs_are_filtered_by_state_name_and_method(root: Path) -> None:
    runs = below(root)
    assert [run.name for run in chosen(runs, [Standing.failed, Standing.completed], None, None)] == [
        "group/middle",
        "new",
    ]
    assert [run.name for run in chosen(runs, [], "*o*", "clip")] == ["group/middle", "old one"]
    assert chosen(runs, [], None, "siglip") == []


def test_a_run_is_named_by_its_folder_or_its_way_from_the_root(root: Path) -> None:
    assert [run.name for run in named(["old one", str(root / "new")], root)] == ["old one", "new"]
    with pytest.raises(CommandError) as refused:
        named(["newer", "group/middel"], root)
    first, second = refused.value.problems
    assert "'newer' is no folder of a run" in first and "did you mean group/middle?" in second


def test_slurm_is_asked_once_and_only_for_its_own_runs(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(slurm_client, "living_jobs", lambda: asked.append(1) or {"1": "RUNNING"})  # type: ignore[func-returns-value]
    below(root)
    assert asked == []
    for name in ("x", "y"):
        make_run(root / name, plan={"cluster": "slurm"})
    assert [run.standing for run in below(root) if run.name in "xy"] == [Standing.running] * 2 and asked == [1]

    def silent() -> dict[str, str]:
        raise slurm_client.SlurmError("squeue is not installed here")

    monkeypatch.setattr(runs_choice.slurm_client, "living_jobs", silent)
    assert all(run.may_live for run in below(root) if run.name in "xy")
