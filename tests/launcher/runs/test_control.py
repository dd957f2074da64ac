"""Starting again and ending, as far as no process is needed."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from launcher.runs import control as runs_control
from launcher.runs import reading as runs_reading
from launcher.runs.control import cancel, directory_of, restart_words, start_again, wait_for_end, wait_until_heard
from launcher.runs.reading import Reading, Standing, read_run
from launcher.slurm import client as slurm_client
from mmpretrain.console import CommandError
from mmpretrain.run_folder import RunFolder, State
from tests.launcher.runs.test_reading import make_run


def reading(path: Path, state: str = "failed", jobs: dict[str, str] | None = None, **plan: Any) -> Reading:
    """A run with such a plan."""
    return read_run(make_run(path, state, plan=plan), path.name, jobs or {})


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (
            "mmpretrain train --nodes 1 'run.name=a b' optim.lr=1",
            ["train", "--nodes", "1", "run.name=a b", "optim.lr=1"],
        ),
        ("mmpretrain finetune clip --data x", ["finetune", "clip", "--data", "x"]),
        ("python launcher/submit.py method=clip", ["train", "method=clip"]),
        ("python launcher/mmpretrain_command.py train method=clip", ["train", "method=clip"]),
        ("python /far/launcher/submit.py method=clip", ["train", "method=clip"]),
    ],
)
def test_a_run_starts_again_by_its_own_command(tmp_path: Path, command: str, words: list[str]) -> None:
    assert restart_words(reading(tmp_path / "a", command=command)) == words


@pytest.mark.parametrize("command", ["", "python other.py", "mmpretrain 'unbalanced"])
def test_without_one_it_starts_from_its_config_with_its_ranks(tmp_path: Path, command: str) -> None:
    plan: dict[str, Any] = {"command": command, "nodes": 2, "ranks_per_node": 4, "profile_name": "mine"}
    config = ["--config", str(tmp_path / "a" / "config.yaml")]
    ranks = ["--cluster=mine", "--nodes=2", "--gpus-per-node=4"]
    place = [f"run.root={tmp_path}", "run.name=a"]
    assert restart_words(reading(tmp_path / "a", **plan)) == ["train", *config, *ranks, *place]


@pytest.mark.parametrize(("state", "said"), [("completed", "is complete"), ("running", "in use by process 1")])
def test_what_is_complete_or_lives_is_not_started_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, state: str, said: str
) -> None:
    monkeypatch.setattr(runs_reading, "is_controller", lambda pid, logs: True)
    with pytest.raises(CommandError, match=said):
        restart_words(reading(tmp_path / "a", state))


def test_a_complete_run_starts_again_to_become_longer(tmp_path: Path) -> None:
    run = reading(tmp_path / "a", "completed", command="mmpretrain train method=clip")
    assert restart_words(run, ["train.samples=900"]) == ["train", "method=clip"]
    with pytest.raises(CommandError, match=r"train\.samples=MORE makes it longer"):
        restart_words(run, ["data.workers=2"])


def test_a_moved_run_does_not_start_another_one_at_its_old_place(tmp_path: Path) -> None:
    words = "mmpretrain train method=clip"
    moved = reading(tmp_path / "a", command=words, run_folder=str(tmp_path / "before" / "a"))
    assert restart_words(moved)[-2:] == [f"run.root={tmp_path}", "run.name=a"]
    with pytest.raises(CommandError, match=r"was started as .*/b: name its folder b again"):
        restart_words(reading(tmp_path / "c", command=words, run_folder=str(tmp_path / "b")))


def test_it_starts_where_it_was_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["mmpretrain", "runs", "resume", "a"])
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there").mkdir()
    called: dict[str, Any] = {}

    class Group:
        """Notes how it was called."""

        def main(self, **given: Any) -> None:
            """Note it."""
            import sys

            called.update(given, cwd=os.getcwd(), argv=sys.argv)

    start_again(
        Group(), ["train", "method=clip"], directory_of(reading(tmp_path / "a", directory=str(tmp_path / "there")))
    )
    assert called == {
        "args": ["train", "method=clip"],
        "prog_name": "mmpretrain",
        "cwd": str(tmp_path / "there"),
        "argv": ["mmpretrain", "train", "method=clip"],
    }
    with pytest.raises(CommandError, match="is gone: its relative paths start there"):
        directory_of(reading(tmp_path / "b", directory=str(tmp_path / "nowhere")))


def test_a_local_run_gets_the_signal_that_saves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[tuple[int, int]] = []
    monkeypatch.setattr(runs_reading, "is_controller", lambda pid, logs: True)
    monkeypatch.setattr(runs_control.os, "kill", lambda *sending: sent.append(sending))
    assert "saves a checkpoint" in cancel(reading(tmp_path / "a", "running"))
    assert sent == [(1, signal.SIGTERM)]


@pytest.mark.parametrize(("word", "state"), [("RUNNING", "running"), ("PENDING", "preempted")])
def test_a_slurm_job_is_cancelled_and_a_waiting_one_noted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, word: str, state: str
) -> None:
    cancelled: list[str] = []
    monkeypatch.setattr(slurm_client, "cancel", cancelled.append)
    run = reading(tmp_path / "a", "queued" if word == "PENDING" else "running", {"1": word}, cluster="slurm")
    cancel(run)
    assert cancelled == ["1"] and RunFolder(run.path).status()["state"] == state


@pytest.mark.parametrize(("host", "said"), [("elsewhere", "cannot be reached from here"), (None, "is not running")])
def test_what_cannot_be_reached_is_not_signalled(tmp_path: Path, host: str | None, said: str) -> None:
    given: dict[str, Any] = {"host": host} if host else {}
    with pytest.raises(CommandError, match=said):
        cancel(reading(tmp_path / "a", "running", **given))


def test_a_run_that_still_starts_is_told_until_it_listens_and_then_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[int] = []
    lives = [True]
    monkeypatch.setattr(runs_reading, "is_controller", lambda pid, logs: lives[0])
    monkeypatch.setattr(runs_control.os, "kill", lambda pid, number: sent.append(number))
    run = reading(tmp_path / "a", "queued")
    naps = iter([None, {"state": State.running}, {"state": State.preempted, "cause": "stopped after step 3"}])

    def nap(_: float) -> None:
        if change := next(naps):
            RunFolder(run.path).update_status(**change)
            lives[0] = change["state"] is State.running

    monkeypatch.setattr(runs_control.time, "sleep", nap)
    cancel(run)
    wait_until_heard(run)
    assert len(sent) == 3  # at once, while it starts, and once it listens
    ended = wait_for_end(run, 60)
    assert (ended.standing, ended.cause) == (Standing.preempted, "stopped after step 3")
    assert set(sent) == {signal.SIGTERM}


def test_a_job_of_slurm_that_still_starts_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a sweep there may be hundreds, and each would be cancelled after the one before has ended."""
    monkeypatch.setattr(runs_control.time, "sleep", lambda _: pytest.fail("it was waited for"))
    run = reading(tmp_path / "a", "queued", {"1": "RUNNING"}, cluster="slurm")
    assert (run.standing, run.may_live) == (Standing.queued, True)
    wait_until_heard(run)
