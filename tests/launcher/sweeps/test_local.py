"""A sweep on this machine: runs one after another, what a failure and a signal mean for the others."""

from __future__ import annotations

import io
import os
import signal
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from launcher.planning.plan import PlanError
from launcher.planning.resources import Cluster, Resources
from launcher.runs.sweep_folder import living_launcher, not_started
from launcher.sweeps import local as sweep_local
from launcher.sweeps.local import exit_code, run_locally, slots
from launcher.sweeps.plan import Element, SweepPlan
from launcher.sweeps.record import write_record
from mmpretrain.run_folder import RunFolder, State, read_lines
from tests.launcher.toy import ROOT, toy_job, toy_plan
from tests.slurm.test_run import wait_until


@pytest.fixture(autouse=True)
def toys(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ranks import the toy job from tests/."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


def toy_sweep(folder: Path, names: list[str]) -> SweepPlan:
    """A sweep of toy runs on one rank each."""
    plans = [toy_plan(folder / name, ranks=1, steps=10) for name in names]
    elements = [Element(plan.run_folder.name, (), {}, plan.run_folder, plan=plan) for plan in plans]
    plan = SweepPlan(folder.name, folder, (), tuple(elements), plans[0].resources, "the command")
    write_record(plan)
    return plan


def state(plan: SweepPlan, name: str) -> str | None:
    """What the status of a run says."""
    return RunFolder(plan.folder / name).status().get("state")


@pytest.mark.processes
def test_a_run_that_fails_does_not_stop_the_others(tmp_path: Path) -> None:
    plan, out = toy_sweep(tmp_path / "sweep", ["a", "b"]), io.StringIO()
    jobs = {plan.folder / name: toy_job(plan.folder / name, raise_on=at) for name, at in (("a", 0), ("b", None))}
    assert run_locally(plan, Console(file=out, width=300), jobs.__getitem__) == 1
    assert (state(plan, "a"), state(plan, "b")) == (State.failed, State.completed)
    text = out.getvalue()
    assert "run 1 of 2 failed (exit code 1)" in text and "(all in about 0:00:" in text
    codes = {(plan.folder / name / "code").readlink() for name in "ab"}
    assert len(codes) == 1, "both ran from one copy of the code"
    assert living_launcher(plan.folder) is None


@pytest.mark.processes
def test_a_signal_lets_the_run_save_and_starts_no_further_one(tmp_path: Path) -> None:
    plan, out = toy_sweep(tmp_path / "sweep", ["a", "b"]), io.StringIO()
    jobs = {plan.folder / name: toy_job(plan.folder / name, steps=10, pause=0.5) for name in "ab"}

    def stop_it() -> None:
        wait_until(lambda: len(list(read_lines(RunFolder(plan.folder / "a").metrics))) > 1)
        assert living_launcher(plan.folder) == os.getpid()
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=stop_it)
    thread.start()
    code = run_locally(plan, Console(file=out, width=300), jobs.__getitem__)
    thread.join()
    assert code == 75, out.getvalue()
    assert (state(plan, "a"), state(plan, "b")) == (State.preempted, None)
    assert "stopping: 1 runs are not started; the same command starts them" in out.getvalue()
    assert not_started(plan.folder) == ["b"]


def test_the_exit_code_is_that_of_the_runs() -> None:
    assert exit_code([0, 0], stopped=False) == 0
    assert exit_code([0, 76, 76], stopped=False) == 76
    assert exit_code([0, 76, 74], stopped=False) == 1
    assert exit_code([0, 75], stopped=False) == 75
    assert exit_code([1, 75], stopped=True) == 75
    assert exit_code([130, 0], stopped=True) == 130


def test_runs_at_a_time_have_their_own_gpus_and_cores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = replace(toy_sweep(tmp_path / "sweep", ["a"]), at_once=2)
    found = slots(plan)
    cores = [slot.cores or frozenset() for slot in found]
    assert len(found) == 2 and not cores[0] & cores[1]
    monkeypatch.setattr(sweep_local, "local_gpus", lambda: (("0", "1", "2", "3"), []))
    resources = Resources(Cluster.local, 1, 2, 2, ("0", "1"))
    assert [slot.gpus for slot in slots(replace(plan, resources=resources))] == [("0", "1"), ("2", "3")]
    with pytest.raises(PlanError, match="need 6 GPUs, and this machine has 4: use at most 2"):
        slots(replace(plan, resources=resources, at_once=3))
