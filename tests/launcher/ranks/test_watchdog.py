"""A rank that hangs is called so: which one, on which host, and where all of them stood."""

from __future__ import annotations

import io
import os
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest
from rich.console import Console
from submitit.core.utils import JobPaths

from launcher.launching.launch import launch
from launcher.ranks import watchdog
from launcher.ranks.heartbeats import Beat, Verdict, verdict
from launcher.ranks.watchdog import Watchdog, Watched
from mmpretrain.endings import Ending
from mmpretrain.run_folder import RunFolder, read_lines
from tests.launcher.test_local_run import importable_toys, ranks_alive, run  # noqa: F401
from tests.launcher.toy import toy_job, toy_plan

pytestmark = [pytest.mark.processes, pytest.mark.usefixtures("importable_toys")]


@pytest.mark.parametrize(
    ("settings", "hang_s", "said"),
    [
        ({"hang": 1}, 4, ("rank 1 (on ", "hangs for ", "after step 2", "toy.py:", "the other waits at ")),
        pytest.param({"stop": 1}, 4, ("rank 1 (on ", "stopped answering"), marks=pytest.mark.slow),
        pytest.param({"stop": 0}, 4, ("rank 0 (on ", "stopped answering"), marks=pytest.mark.slow),
        pytest.param({"hang": 1, "timeout_s": 5}, 60, ("rank 1 (on ", "hangs for "), marks=pytest.mark.slow),
        pytest.param(
            {"ranks": 3, "hang": 1, "timeout_s": 5}, 60, ("rank 1 (on ", "hangs for "), marks=pytest.mark.slow
        ),
        pytest.param({"absent": 1}, 4, ("hang",), marks=pytest.mark.slow),
    ],
)
def test_a_rank_that_hangs_is_named_with_its_place(
    tmp_path: Path, settings: dict[str, int], hang_s: int, said: tuple[str, ...]
) -> None:
    """A sleep, a stopped process, a collective that times out first (on one rank and on several, of which one asks who
    hangs), and one that a rank leaves out."""
    settings = dict(settings)
    ranks = settings.pop("ranks", 2)
    plan = toy_plan(tmp_path / "toy", ranks, tokens=[f"engine.hang_s={hang_s}"])
    began = time.monotonic()
    code, out = run(plan, **settings)
    status = RunFolder(plan.run_folder).status()
    assert code is Ending.hung, out
    assert time.monotonic() - began < 90
    assert (status["state"], status["ending"]) == ("failed", "hung")
    for words in said:
        assert words in status["cause"], status
    assert "the same command starts over" in out
    stacks = sorted(path.name.partition("_")[2] for path in (plan.run_folder / "logs").glob("*_stacks.txt"))
    assert stacks == ([f"{rank}_stacks.txt" for rank in range(ranks)] if "stop" not in settings else stacks)
    assert not ranks_alive(plan)


@pytest.mark.slow
def test_ranks_do_not_outlive_the_process_that_started_them(tmp_path: Path) -> None:
    """Nobody would know of them, and the same command would start others beside them."""
    plan = toy_plan(tmp_path / "toy", steps=1000, tokens=["engine.hang_s=5"])
    launch(plan, Console(file=io.StringIO()), toy_job(plan.run_folder, steps=1000, pause=0.1), follow_it=False)
    folder = RunFolder(plan.run_folder)
    wait_for(lambda: any(True for _ in read_lines(folder.metrics)))
    os.kill(int(folder.status()["job_id"]), signal.SIGKILL)
    wait_for(lambda: not ranks_alive(plan))
    status = folder.status()
    assert (status["state"], status["ending"]) == ("failed", "lost") and "is gone" in status["cause"]


def test_a_stop_during_the_start_is_in_the_status_before_the_ranks_can_heed_it(tmp_path: Path) -> None:
    """A rank that is killed while it still starts leaves it behind."""
    plan = toy_plan(tmp_path / "toy", ranks=1, tokens=["engine.hang_s=1"])
    launch(plan, Console(file=io.StringIO()), toy_job(plan.run_folder, slow_start=60), follow_it=False)
    folder = RunFolder(plan.run_folder)
    wait_for(lambda: list(plan.run_folder.glob("heartbeats/*.json")))
    controller = int(folder.status()["job_id"])
    os.kill(controller, signal.SIGTERM)
    wait_for(lambda: folder.status()["state"] == "preempted")
    assert folder.status()["cause"] == "stopped while it started, before its first step"
    for process in psutil.Process(controller).children():
        process.kill()
    wait_for(lambda: not ranks_alive(plan))
    assert folder.status()["state"] == "preempted"


def wait_for(condition: Callable[[], object]) -> None:
    """Poll for a minute."""
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "timed out"
        time.sleep(0.05)


def beat(number: int, **changes: Any) -> Beat:
    """A sign of life of a rank that waits for others after step 7."""
    facts = {"phase": "step", "step": 7, "count": 9, "idle_s": 61.0, "patience_s": 60.0, "where": "a.py:1 in f"}
    return Beat("7-0-1", number, "node2", 42, **{**facts, "waits": True, **changes})


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        (
            [beat(1), beat(1)],
            [beat(3), beat(1)],
            "rank 1 (on node2, process 42) hangs: it stopped answering in phase s",
        ),
        ([beat(1), beat(1)], [beat(3), beat(3, waits=False, where="b.py:2 in g")], "rank 1 (on node2) hangs for 61 s"),
        ([beat(1), beat(1)], [beat(3), beat(3, count=8)], "rank 1 (on node2) hangs"),
        ([beat(1), beat(1)], [beat(3), beat(3)], "all ranks hang for 61 s, phase step after step 7, at a.py:1 in f"),
        ([beat(1)], [beat(3)], "rank 1 never answered since the job started; the other waits at a.py:1 in f"),
        (
            [beat(1, waits=False)] * 3,
            [beat(3, waits=False), beat(3, waits=False, where="b.py:2 in g"), beat(3, waits=False)],
            "rank 1 (on node2) hangs for 61 s in phase step after step 7, at b.py:2 in g; the others wait at a.py:1 in",
        ),
    ],
)
def test_the_rank_that_keeps_others_waiting_is_the_silent_or_the_busy_or_the_one_behind(
    before: list[Beat], after: list[Beat], said: str
) -> None:
    found = verdict(dict(enumerate(before)), dict(enumerate(after)), max(2, len(after)), 61.0)
    assert found.text.startswith(said) and found.ending is Ending.hung


def test_time_that_nobody_saw_pass_is_no_hang(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that slept for an hour, or a shell's Ctrl-Z."""
    clock = [1000.0]
    monkeypatch.setattr(watchdog.time, "monotonic", lambda: clock[0])
    told: list[Verdict] = []
    of = Watched(tmp_path, 0, 1, "7-0-1", JobPaths(tmp_path, "7", 0), 60.0)
    watch = Watchdog(of, told.append)
    for _ in range(3):
        clock[0] += 3600
        watch._look()
    assert watch._idle <= 4 * of.beat_s and not told and not list(tmp_path.glob("hang-*"))
    assert "stood still for 3600 s before" in watch._stood_still(), "where a collective gives up, that is said"
    for _ in range(7):
        clock[0] += of.beat_s
        watch._look()
    assert watch._stood_still() == "", "but not for long"


class Quick(Watched):
    """Looked at often."""

    beat_s = 0.05


def test_of_several_that_give_up_one_asks_and_the_others_stay_alive_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their end would end the one that asks, and their silence would make them the ones that hang."""
    monkeypatch.setattr(watchdog, "end_here", lambda _: None)
    monkeypatch.setattr(watchdog, "dump_stacks", lambda _: None)
    dogs = [Watchdog(Quick(tmp_path, n, 3, "7-0", JobPaths(tmp_path, "7", n), 60.0), print) for n in range(3)]
    for dog in dogs:
        dog.start()
    with ThreadPoolExecutor() as pool:
        asked = pool.submit(dogs[0].why_waiting, RuntimeError("Timed out waiting 300000ms for recv"))
        wait_for(dogs[0]._announced)
        assert dogs[2].why_waiting(RuntimeError("timed out")) is None
        leaving = pool.submit(dogs[2].let_tell)
        found = asked.result()
        assert not leaving.done()
        dogs[0].has_told()
        assert leaving.result()
    for dog in dogs:
        dog.stop()
        dog._thread.join(60)  # what it may not do here it must not do later
        assert not dog._thread.is_alive()
    assert found is not None and found.ranks == (1,) and "stopped answering" not in found.text


def test_a_rank_that_has_failed_ends_even_if_a_thread_of_it_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Python waits for such threads, and that is no hang whose cause would be worth more than the error's."""
    ended: list[int] = []
    monkeypatch.setattr(watchdog, "_end", ended.append)
    watch = Watchdog(Watched(tmp_path, 0, 1, "7-0", JobPaths(tmp_path, "7", 0), 60.0), print)
    watch.start()
    watch.leave_within(0.01, Ending.disk_full.code)
    wait_for(lambda: ended == [Ending.disk_full.code])
    watch._thread.join(5)
    assert not watch._thread.is_alive()
