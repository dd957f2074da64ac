"""Watching the array of a sweep until all of its runs have ended."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

from rich.console import Console

from launcher.runs.reading import Reading, Standing, read_run
from launcher.runs.sweep_known import listed_states
from launcher.slurm import client as slurm_client
from launcher.sweeps.local import exit_code
from launcher.sweeps.plan import SweepPlan
from mmpretrain.endings import Ending
from mmpretrain.words import shortened


def follow_array(plan: SweepPlan, runs: Mapping[str, Path], console: Console) -> int:
    """Say how many runs are in which state whenever that changes, and each one's end; the exit code. runs: by job id.

    Ctrl-C ends the following alone.
    """
    told: str | None = None
    try:
        while True:
            over, readings = _look(runs)
            counts = ", ".join(f"{count} {standing}" for standing, count in listed_states(readings).items())
            if counts != told:
                _say(console, f"{len(runs)} runs: {counts}")
                told = counts
            if over:
                break
            time.sleep(slurm_client.POLL_S)
    except KeyboardInterrupt:
        _say(console, f"no longer following; array {next(iter(runs)).partition('_')[0]} goes on")
        return Ending.interrupted.code
    for run in readings:
        if run.standing is not Standing.completed:
            _say(console, f"{run.name}: {run.standing}: {shortened(run.cause or 'no cause is known')}")
    return exit_code([_code(run) for run in readings], stopped=False)


def _look(runs: Mapping[str, Path]) -> tuple[bool, list[Reading]]:
    """Whether all are over, and how they stand. A requeued job passes through final states: two looks must agree."""
    jobs = _living(runs)
    if jobs is not None and not jobs:
        time.sleep(slurm_client.POLL_S)
        jobs = _living(runs)
    readings = [read_run(path, path.name, jobs) for path in runs.values()]
    return jobs is not None and not jobs, readings


def _living(runs: Mapping[str, Path]) -> dict[str, str] | None:
    """Slurm's word for those that are not over; None: it does not answer."""
    try:
        return {job: word for job, word in slurm_client.living_jobs().items() if job in runs}
    except slurm_client.SlurmError:
        return None


def _code(run: Reading) -> int:
    """What following this run alone would have ended with."""
    if run.standing is Standing.completed:
        return Ending.completed.code
    if run.standing is Standing.preempted:
        return Ending.preempted.code
    noted = str(run.status.get("ending"))
    if run.standing is Standing.failed and noted in Ending.__members__:
        return Ending[noted].code
    return Ending.lost.code if run.standing is Standing.lost else Ending.failed.code


def _say(console: Console, text: str) -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=True)
