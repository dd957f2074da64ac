"""Starting a run again and ending it."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from launcher.planning.going_on import LENGTH
from launcher.runs.choice import named
from launcher.runs.reading import Life, Reading, Standing
from launcher.runs.show import words_of
from launcher.slurm import client as slurm_client
from mmpretrain.console import CommandError
from mmpretrain.run_folder import RunFolder, State
from mmpretrain.words import command

POLL_S = 0.5
START_S = 120.0  # ranks that still start do not listen yet, and are told again and again


def restart_words(run: Reading, added: Sequence[str] = ()) -> list[str]:
    """What follows ``mmpretrain`` to start the run again: its own command, or else one from its stored config.

    added: what will stand behind it. Raises CommandError for a run that may be alive or cannot be read, and for one
    that is complete unless it is to become longer.
    """
    refuse_resume(run, longer=any(word.startswith(f"{LENGTH}=") for word in added))
    if _moved(run):  # its command would start another run where this one was
        return _from_config(run)
    words = words_of(str(run.plan.get("command") or ""))
    if words[:1] == ["python"] and words[1:2] and Path(words[1]).name == "submit.py":
        return ["train", *words[2:]]
    if words[:1] == ["python"] and words[1:2] and Path(words[1]).name == "mmpretrain_command.py":
        return words[2:]
    if words[1:] and Path(words[0]).name.startswith("mmpretrain"):
        return words[1:]
    return _from_config(run)


def refuse_resume(run: Reading, *, longer: bool = False) -> None:
    """Raises CommandError, with what to do instead, where there is nothing to start again. longer: whether the run is
    to have more steps than before."""
    if run.standing is Standing.completed and not longer:
        further = command("mmpretrain", "runs", "resume", run.path)
        raise CommandError(
            [f"{run.path} is complete: {further} {LENGTH}=MORE makes it longer, and another run needs another run.name"]
        )
    if run.standing is Standing.damaged:
        raise CommandError([str(run.cause)])
    if run.may_live:
        raise CommandError([f"{run.path} is in use by {run.job.words}: wait for it, or cancel it first"])


def _moved(run: Reading) -> bool:
    """Whether the run's folder is not where it was started. Raises CommandError if it has another name now."""
    started = Path(str(run.plan.get("run_folder") or run.path))
    if started.resolve() == run.path.resolve():
        return False
    if started.name != run.path.name:
        raise CommandError(
            [f"{run.path} was started as {started}: name its folder {started.name} again, for a run keeps its run.name"]
        )
    return True


def _from_config(run: Reading) -> list[str]:
    """Of a run that was not started by a command line, or whose plan is gone."""
    config = RunFolder(run.path).config
    if not config.exists():
        raise CommandError([f"{run.path} has neither a command in plan.json nor a config.yaml: start it anew"])
    words = ["train", "--config", str(config)]
    if run.plan:
        # A profile's name means its cluster, ranks and limits as well.
        cluster = run.plan.get("profile_name") or run.plan.get("cluster", "auto")
        words += [f"--cluster={cluster}", f"--nodes={run.plan.get('nodes', 1)}"]
        words += [f"--gpus-per-node={run.plan['ranks_per_node']}"] if "ranks_per_node" in run.plan else []
    return [*words, f"run.root={run.path.parent}", f"run.name={run.path.name}"]


def directory_of(run: Reading) -> Path:
    """Where the run's relative paths start. Raises CommandError if it is gone."""
    directory = Path(str(run.plan.get("directory") or Path.cwd()))
    if not directory.is_dir():
        raise CommandError([f"{directory}, where {run.path} was started, is gone: its relative paths start there"])
    return directory


def cancel(run: Reading) -> str:
    """Ask the run to save a checkpoint and end; what was done, in words. Raises CommandError, SlurmError."""
    if run.job.life is Life.gone:
        raise CommandError([f"{run.path} is not running ({run.standing.value})"])
    if run.job.life is Life.unknown:
        raise CommandError([f"{run.path}: its job cannot be reached from here: {run.job.words}"])
    if run.plan.get("cluster") != "slurm":
        _ask_to_stop(run)
        return f"{run.job.words} was asked to end: it saves a checkpoint after the step that it is at"
    job = str(run.status["job_id"])
    slurm_client.cancel(job)
    if run.job.life is Life.waiting:
        RunFolder(run.path).update_status(state=State.preempted, cause="cancelled while it waited in the queue")
        return f"Slurm job {job} left the queue"
    return f"Slurm job {job} was cancelled: it saves a checkpoint, if the step that it is at ends within KillWait"


def wait_until_heard(run: Reading) -> None:
    """Of a local run that still starts: until its ranks listen, and have been told. Slurm tells its jobs by itself."""
    if run.plan.get("cluster") == "slurm":
        return
    end = time.monotonic() + START_S
    while run.standing is Standing.queued and run.job.life is Life.alive and time.monotonic() < end:
        _pause(run)
        run = _again(run)


def wait_for_end(run: Reading, seconds: float) -> Reading:
    """The run once no process of it lives. Raises CommandError if one still does after ``seconds``."""
    end = time.monotonic() + seconds
    while (run := _again(run)).job.life is not Life.gone:
        if time.monotonic() >= end:
            raise CommandError([f"{run.path} has not ended within {seconds:.0f} s; it was asked to, and may yet"])
        _pause(run)
    return run


def _pause(run: Reading) -> None:
    """Until the run is looked at again; Slurm is asked less often."""
    time.sleep(slurm_client.POLL_S if run.plan.get("cluster") == "slurm" else POLL_S)


def _again(run: Reading) -> Reading:
    """The run as it is now; one on this machine is told to stop once more."""
    (now,) = named([str(run.path)], run.path.parent)
    if now.job.life is Life.alive and now.plan.get("cluster") != "slurm":
        _ask_to_stop(now)
    return now


def _ask_to_stop(run: Reading) -> None:
    with suppress(ProcessLookupError):
        os.kill(int(run.status["job_id"]), signal.SIGTERM)


def start_again(group: Any, words: Sequence[str], directory: Path) -> None:
    """Run ``mmpretrain WORDS`` in this process, in ``directory``; ends it with that command's exit code.

    group: the whole command line.
    """
    os.chdir(directory)
    sys.argv = ["mmpretrain", *words]  # what the plan will call the command
    group.main(args=list(words), prog_name="mmpretrain")
