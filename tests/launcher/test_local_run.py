"""Real local runs: two gloo ranks through submitit, followed to their end."""

from __future__ import annotations

import io
import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from rich.console import Console

from launcher.launching.launch import launch
from launcher.planning.plan import RunPlan
from launcher.ranks import controller
from mmpretrain.endings import Ending
from mmpretrain.run_folder import RunFolder, read_lines
from tests.launcher.toy import ROOT, toy_job, toy_plan

pytestmark = pytest.mark.processes


@pytest.fixture(autouse=True)
def importable_toys(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ranks import this folder's toy job; stale variables must not disturb them."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("RANK", "7")
    monkeypatch.setenv("MASTER_PORT", "1")
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")  # the same on machines with GPUs


def run(plan: RunPlan, **settings: Any) -> tuple[Ending, str]:
    """Launch and follow a toy job; its exit code and what was printed."""
    out = io.StringIO()
    code = launch(plan, Console(file=out), toy_job(plan.run_folder, **settings), follow_it=True)
    return code, out.getvalue()


def when_step(plan: RunPlan, step: int, act: Callable[[], object]) -> threading.Thread:
    """Call ``act`` from another thread once the run has logged ``step``."""

    def wait() -> None:
        deadline = time.monotonic() + 60
        metrics = RunFolder(plan.run_folder).metrics
        while time.monotonic() < deadline and all(line["step"] < step for line in read_lines(metrics)):
            time.sleep(0.05)
        act()

    thread = threading.Thread(target=wait)
    thread.start()
    return thread


def ranks_alive(plan: RunPlan) -> list[str]:
    """Command lines of processes that belong to the run."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            text = entry.read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
        if str(plan.run_folder) in text:
            found.append(text)
    return found


@pytest.fixture(autouse=True)
def interrupts() -> Iterator[None]:
    """Ctrl-C counts: a shell that starts the tests in the background has it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_a_run_completes_from_its_snapshot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The ranks start inside the repository, and still take the code from the run folder."""
    monkeypatch.chdir(ROOT)
    plan = toy_plan(tmp_path / "runs" / "toy")
    code, out = run(plan)
    assert code == Ending.completed, out
    assert "step 10/10" in out and "loss 0.1000" in out and "1,000 samples/s" in out
    status = RunFolder(plan.run_folder).status()
    assert status["state"] == "completed" and status["job_id"].isdigit() and status["total_steps"] == 10
    facts = [json.loads((plan.run_folder / f"rank-{rank}.jsonl").read_text()) for rank in (0, 1)]
    assert [fact["LOCAL_RANK"] for fact in facts] == ["0", "1"]
    for fact in facts:
        assert fact["launcher"] == str(plan.run_folder / "code" / "launcher" / "ranks" / "job.py")
        assert fact["directory"] == str(ROOT)
        assert (fact["MASTER_ADDR"], fact["WORLD_SIZE"]) == ("127.0.0.1", "2")
        assert (fact["CUDA_VISIBLE_DEVICES"], fact["DS_ACCELERATOR"], fact["PYTHONSAFEPATH"]) == ("", "cpu", None)
        assert fact["ACCELERATE_USE_CPU"] is None
        assert fact["threads"] == max(1, len(os.sched_getaffinity(0)) // 2)
    assert os.environ["RANK"] == "7", "the launcher's own environment is left as it was"


def test_the_root_cause_is_the_rank_that_failed_first(tmp_path: Path) -> None:
    plan = toy_plan(tmp_path / "toy")
    code, out = run(plan, raise_on=1)
    assert code == Ending.failed
    cause = "rank 1: FileNotFoundError: data/toy/shard-000001.tar is missing"
    assert f"failed: {cause}\n" in out, out
    log = next(line.removeprefix("log: ") for line in out.splitlines() if line.startswith("log: "))
    assert "shard-000001.tar" in Path(log).read_text()
    status = RunFolder(plan.run_folder).status()
    assert (status["state"], status["cause"]) == ("failed", cause)
    assert not ranks_alive(plan)


def test_a_killed_rank_ends_the_run(tmp_path: Path) -> None:
    plan = toy_plan(tmp_path / "toy")
    code, out = run(plan, kill=1)
    assert code == Ending.lost
    assert "failed: rank 1: killed by SIGKILL\n" in out, out
    assert RunFolder(plan.run_folder).status()["ending"] == "lost"


def test_ranks_that_wait_for_a_failed_one_are_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(controller, "GRACE_S", 0.5)
    plan = toy_plan(tmp_path / "toy")
    began = time.monotonic()
    code, out = run(plan, raise_on=1, hang=0)
    assert code == Ending.failed and time.monotonic() - began < 60
    assert "rank 1: FileNotFoundError" in out
    assert not ranks_alive(plan)


def test_a_signal_saves_and_the_same_command_continues(tmp_path: Path) -> None:
    plan = toy_plan(tmp_path / "toy", steps=200)
    thread = when_step(plan, 3, lambda: os.kill(os.getpid(), signal.SIGTERM))
    code, out = run(plan, steps=200, pause=0.1)
    thread.join()
    assert code == Ending.preempted and "preempted: stopped after step" in out and "the command" in out
    saved = int((plan.run_folder / "toy.step").read_text())
    assert 3 <= saved < 200
    assert RunFolder(plan.run_folder).status()["state"] == "preempted"
    code, out = run(toy_plan(tmp_path / "toy", steps=saved + 2), steps=saved + 2)
    assert code == Ending.completed, out
    assert [line["first"] for line in read_lines(plan.run_folder / "rank-1.jsonl")] == [0, saved]


def test_ranks_with_gpus_choose_their_accelerator_themselves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable from the login shell does not reach them (the toy job needs no GPU)."""
    monkeypatch.setenv("DS_ACCELERATOR", "cpu")
    plan = toy_plan(tmp_path / "toy", ranks=1, gpus_per_node=1)
    code, out = run(plan)
    assert code == Ending.completed, out
    assert json.loads((plan.run_folder / "rank-0.jsonl").read_text())["DS_ACCELERATOR"] is None


def wait_until(condition: Callable[[], object]) -> None:
    """Poll for ten seconds."""
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, "timed out"
        time.sleep(0.02)


def test_a_run_that_is_not_followed_goes_on_alone(tmp_path: Path) -> None:
    plan = toy_plan(tmp_path / "toy")
    out = io.StringIO()
    code = launch(plan, Console(file=out), toy_job(plan.run_folder), follow_it=False)
    assert code == Ending.completed and "has started" in out.getvalue() and "kill" in out.getvalue()
    deadline = time.monotonic() + 60
    while RunFolder(plan.run_folder).status()["state"] != "completed" and time.monotonic() < deadline:
        time.sleep(0.2)
    assert RunFolder(plan.run_folder).status()["state"] == "completed"


def test_nobody_waits_for_a_killed_rank_though_nobody_follows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other rank never notices by itself: it does not compute with it."""
    monkeypatch.setattr(controller, "GRACE_S", 0.2)
    plan = toy_plan(tmp_path / "toy")
    launch(plan, Console(file=io.StringIO()), toy_job(plan.run_folder, kill=1, hang=0), follow_it=False)
    folder = RunFolder(plan.run_folder)
    psutil.Process(int(folder.status()["job_id"])).wait(60)
    assert (folder.status()["state"], folder.status()["cause"]) == ("failed", "rank 1: killed by SIGKILL")
    assert not ranks_alive(plan)
