"""Stopping a followed local run: the first signal saves, the second ends at once, whoever else hears them."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
import submitit
from rich.console import Console

from launcher.launching import follow, stopping
from launcher.launching.launch import launch
from launcher.launching.stopping import Stopping, handled_by
from launcher.planning.plan import RunPlan
from mmpretrain.endings import Ending
from mmpretrain.run_folder import RunFolder, State
from tests.launcher.test_local_run import importable_toys, interrupts, ranks_alive, run, when_step  # noqa: F401
from tests.launcher.toy import ROOT, toy_job, toy_plan


def real(test: Callable[..., None]) -> Callable[..., None]:
    """A test of two real ranks."""
    return pytest.mark.processes(pytest.mark.usefixtures("importable_toys", "interrupts")(test))


class NoJob:
    """A job, signals to which are noted."""

    job_id = "0"


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The signals that the controller would get."""
    found: list[int] = []
    monkeypatch.setattr(stopping, "send", lambda _, number: found.append(number))
    return found


def test_signals_close_together_are_one_and_a_later_one_aborts(
    sent: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [100.0]
    monkeypatch.setattr(stopping.time, "monotonic", lambda: clock[0])
    wish = Stopping(cast(Any, NoJob()))
    wish.remind()
    assert not wish.asked and sent == []
    wish(signal.SIGINT, None)
    wish(signal.SIGINT, None)  # a tool that hands it on
    wish.remind()
    wish.remind()
    assert wish.asked and sent == [signal.SIGTERM]
    clock[0] += 2
    wish.remind()  # ranks that had not listened yet
    wish(signal.SIGUSR2, None)  # announces an end, again
    assert sent == [signal.SIGTERM] * 2
    with pytest.raises(KeyboardInterrupt):
        wish(signal.SIGTERM, None)


def test_what_a_shell_ignores_for_the_background_stays_ignored(sent: list[int]) -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        wish = Stopping(cast(Any, NoJob()))
        with handled_by(wish):
            os.kill(os.getpid(), signal.SIGINT)
            assert not wish.asked
            os.kill(os.getpid(), signal.SIGTERM)
            assert wish.asked
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


@real
def test_ctrl_c_saves_and_says_how_to_go_on(tmp_path: Path) -> None:
    plan = toy_plan(tmp_path / "toy", steps=1000)
    thread = when_step(plan, 2, lambda: os.kill(os.getpid(), signal.SIGINT))
    code, out = run(plan, steps=1000, pause=0.1)
    thread.join()
    assert code == Ending.preempted and "saves a checkpoint at its next step" in out and "the command" in out
    assert 2 <= int((plan.run_folder / "toy.step").read_text()) < 1000 and not ranks_alive(plan)
    assert RunFolder(plan.run_folder).status()["state"] == "preempted"


@real
def test_a_second_one_ends_at_once_and_a_third_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stopping, "AGAIN_AFTER_S", 0.0)
    end_ranks = follow.end_ranks

    def interrupt(*_: object) -> str:
        os.kill(os.getpid(), signal.SIGINT)
        return "again"

    def end_while_interrupted(job: submitit.Job[None]) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        end_ranks(job)

    monkeypatch.setattr(follow, "stops", interrupt)
    monkeypatch.setattr(follow, "end_ranks", end_while_interrupted)
    plan = toy_plan(tmp_path / "toy", steps=1000)
    thread = when_step(plan, 1, lambda: os.kill(os.getpid(), signal.SIGINT))
    code, out = run(plan, steps=1000, pause=10.0)
    thread.join()
    assert code == Ending.interrupted and "ended without saving" in out
    assert not ranks_alive(plan) and not (plan.run_folder / "toy.step").exists()


def test_a_second_signal_does_not_undo_a_complete_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its pictures are drawn when the release and the scores are there already."""
    monkeypatch.setattr(follow, "end_ranks", lambda job: None)
    plan, out = toy_plan(tmp_path / "toy"), io.StringIO()
    plan.run_folder.mkdir()
    RunFolder(plan.run_folder).update_status(state=State.completed)
    code = follow._interrupted(plan, cast(Any, NoJob()), Console(file=out, width=200))
    assert code == Ending.completed and f"completed: {plan.run_folder}" in out.getvalue()
    assert RunFolder(plan.run_folder).status()["state"] == "completed"


@pytest.mark.slow
@real
def test_a_signal_to_all_processes_while_they_start_is_no_loss(tmp_path: Path) -> None:
    """As a terminal does it; the ranks hear of it from the launcher as soon as they listen."""
    plan = toy_plan(tmp_path / "toy", steps=1000)
    script = (
        "import io, os, signal, threading, time\n"
        "from pathlib import Path\n"
        "from rich.console import Console\n"
        "from launcher.launching.launch import launch\n"
        "from mmpretrain.run_folder import RunFolder\n"
        "from tests.launcher.toy import toy_job, toy_plan\n"
        f"folder = Path({str(plan.run_folder)!r})\n"
        "plan = toy_plan(folder, steps=1000)\n"
        "def interrupt():\n"
        "    while not RunFolder(folder).status().get('job_id'):\n"
        "        time.sleep(0.02)\n"
        "    time.sleep(0.2)\n"
        "    os.killpg(0, signal.SIGINT)\n"
        "threading.Thread(target=interrupt).start()\n"
        "code = launch(plan, Console(), toy_job(folder, steps=1000, pause=0.05), follow_it=True)\n"
        "raise SystemExit(code.code)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=ROOT,
        start_new_session=True,
        timeout=120,
        capture_output=True,
        text=True,
    )
    assert done.returncode == Ending.preempted.code, done.stdout + done.stderr
    assert (plan.run_folder / "toy.step").exists() and not ranks_alive(plan)


@pytest.mark.slow
@real
def test_a_run_that_is_not_followed_goes_on_after_ctrl_c(tmp_path: Path) -> None:
    """Its processes ignore what a terminal sends to them."""
    plan = toy_plan(tmp_path / "toy")
    launch(plan, Console(file=io.StringIO()), toy_job(plan.run_folder), follow_it=False)
    pid = int(RunFolder(plan.run_folder).status()["job_id"])
    os.kill(pid, signal.SIGINT)
    assert wait_for_state(plan) == "completed"


def wait_for_state(plan: RunPlan) -> str:
    """The run's state when it has ended."""
    deadline = time.monotonic() + 60
    while (state := RunFolder(plan.run_folder).status()["state"]) in ("queued", "running"):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return str(state)
