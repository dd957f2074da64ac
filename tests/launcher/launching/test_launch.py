"""Two launchers and the ranks of one run, all at its folder at once."""

from __future__ import annotations

import io
import multiprocessing
from pathlib import Path
from typing import Any
from unittest.mock import create_autospec

import pytest
from rich.console import Console
from submitit.core.utils import JobPaths

from launcher.launching.launch import LaunchError, launch, prepare
from launcher.planning.plan import RunPlan
from launcher.ranks.job import Rank, noted_failures
from launcher.ranks.watchdog import Watchdog
from mmpretrain.run_folder import Busy, RunFolder, State, locked
from tests.launcher.toy import toy_job, toy_plan


def problem_of(plan: RunPlan) -> str:
    """The one sentence with which a launch is refused."""
    with pytest.raises(LaunchError) as caught:
        launch(plan, Console(file=io.StringIO()), toy_job(plan.run_folder), follow_it=False)
    (problem,) = caught.value.problems
    return problem


def add_fields(folder: RunFolder, prefix: str, count: int) -> None:
    """What a process does that writes its own fields."""
    for number in range(count):
        field: dict[str, Any] = {f"{prefix}{number}": number}
        folder.update_status(**field)


def test_a_second_launcher_is_refused_while_the_first_starts(tmp_path: Path) -> None:
    plan = toy_plan(tmp_path / "toy")
    plan.run_folder.mkdir()
    with locked(plan.run_folder / ".lock", Busy.fail):
        assert "another launcher is starting this run right now" in problem_of(plan)
    assert not (plan.run_folder / "status.json").exists()


def test_a_plan_is_checked_again_before_it_is_carried_out(tmp_path: Path) -> None:
    """Another launcher started the run, with another config, after this plan was made."""
    plan = toy_plan(tmp_path / "toy")
    prepare(toy_plan(tmp_path / "toy"))
    plan.composed.seed = 3
    assert "by another launcher in the meantime" in (problem := problem_of(plan)) and "seed: 0 -> 3" in problem
    plan.composed.seed = 0
    RunFolder(plan.run_folder).update_status(state=State.completed)
    assert "was completed by another launcher" in problem_of(plan)
    (plan.run_folder / "status.json").write_text("{")
    assert f"{plan.run_folder / 'status.json'} is damaged" in problem_of(plan)


@pytest.mark.processes
def test_no_field_of_the_status_is_lost(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=add_fields, args=(folder, prefix, 40)) for prefix in "ab"]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
    assert len(folder.status()) == 80


def test_a_late_failure_leaves_a_completed_run_completed(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    rank = Rank(1, 2, "7", "local", JobPaths(tmp_path, "7", 1))
    watchdog: Any = create_autospec(Watchdog, instance=True)
    watchdog.why_waiting.return_value, watchdog.let_tell.return_value = None, False
    for state, after in ((State.completed, "completed"), (State.running, "failed")):
        folder.update_status(state=state)
        with pytest.raises(SystemExit), noted_failures(folder, rank, watchdog):
            raise ConnectionError("while the process group ended")
        assert folder.status()["state"] == after
