"""Carry out a plan: prepare the run folder, submit, and follow if asked."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import submitit
from rich.console import Console
from submitit.core.utils import FailedSubmissionError, UncompletedJobError

from launcher.launching.executors import submit
from launcher.launching.follow import follow
from launcher.launching.slurm_check import changed_by_slurm
from launcher.launching.snapshot import take_snapshot
from launcher.planning.plan import RunPlan
from launcher.planning.previous_run import Action, read_history
from launcher.planning.resources import Cluster
from launcher.ranks.job import Job
from mmpretrain.config.compose import save_config
from mmpretrain.endings import Ending, ending_of
from mmpretrain.files import replace_text
from mmpretrain.run_folder import Busy, DamagedFileError, RunFolder, State, locked
from mmpretrain.words import command, shortened


class LaunchError(RuntimeError):
    """The run folder cannot be used, or the cluster refused the job; ``problems`` holds one sentence each."""

    def __init__(self, *problems: str) -> None:
        self.problems = list(problems)
        super().__init__("\n".join(problems))


def launch(
    plan: RunPlan,
    console: Console,
    job: Job | None = None,
    *,
    follow_it: bool,
    snapshot: Callable[[Path], Path] = take_snapshot,
) -> Ending:
    """Submit ``plan`` and return what the launcher should exit with. Raises LaunchError.

    snapshot: what puts the code into a run's folder.
    """
    try:
        with only_launcher(plan):
            plan = as_it_stands(plan)
            prepare(plan, snapshot)
            handle = _submitted(plan, job or Job(plan.run_folder))
    except OSError as error:
        raise LaunchError(_unusable(plan, error)) from error
    except DamagedFileError as error:
        raise LaunchError(str(error)) from error
    if follow_it:
        if plan.resources.cluster is Cluster.slurm:
            _announce(plan, handle, console)
        return follow(plan, handle, console)
    _announce(plan, handle, console)
    return Ending.completed


def _unusable(plan: RunPlan, error: OSError) -> str:
    """A folder that cannot be written into, in one sentence, whatever of the error is known."""
    said = error.strerror or shortened(str(error).strip() or type(error).__name__, 200)
    place = error.filename or plan.run_folder
    full = ending_of(error) is Ending.disk_full
    fix = "free some space there" if full else "make it writable (nothing but a folder may stand there)"
    return f"{place}: {said}: {fix}, or let runs lie elsewhere by run.root=FOLDER"


def prepare(plan: RunPlan, snapshot: Callable[[Path], Path] = take_snapshot) -> None:
    """Write config, code snapshot, plan and status into the run folder. snapshot: as of :func:`launch`."""
    folder = RunFolder(plan.run_folder)
    folder.path.mkdir(parents=True, exist_ok=True)
    snapshot(folder.path)
    replace_text(folder.plan, json.dumps(plan.to_json(), indent=1))
    status = folder.status()
    if status.get("state") == State.completed.value and folder.release.exists():
        # What it released stays known while it goes on; earlier versions did not write that down.
        folder.update_status(released_step=status.get("released_step", status.get("total_steps")))
    folder.update_status(state=State.queued, job_id=None, cause=None, total_steps=plan.batches.steps)
    save_config(plan.config, folder.config)


@contextmanager
def only_launcher(plan: RunPlan) -> Iterator[None]:
    """Until the job's id is in the run folder, nothing else there would tell a second launcher about the first."""
    plan.run_folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        try:
            stack.enter_context(locked(plan.run_folder / ".lock", Busy.fail))
        except BlockingIOError as error:
            raise LaunchError(
                f"{plan.run_folder}: another launcher is starting this run right now:"
                " wait for it, or use another run.name"
            ) from error
        yield


def as_it_stands(plan: RunPlan) -> RunPlan:
    """The plan for what the run folder holds now: others may have used it since the plan was made."""
    history = read_history(RunFolder(plan.run_folder), plan.composed, plan.resources.world_size, plan.command)
    if history.problems:
        raise LaunchError(*history.problems)
    if plan.action is Action.new and history.action is not Action.new and history.notes:
        raise LaunchError(
            f"{plan.run_folder} was started by another launcher in the meantime ({'; '.join(history.notes)}):"
            " give the command again, or use another run.name"
        )
    if history.action is Action.complete:
        raise LaunchError(f"{plan.run_folder} was completed by another launcher in the meantime")
    return replace(plan, action=history.action, step=history.step)


def _submitted(plan: RunPlan, job: Job) -> submitit.Job[None]:
    folder = RunFolder(plan.run_folder)
    try:
        handle = submit(plan, job)
    except (FailedSubmissionError, UncompletedJobError, subprocess.CalledProcessError) as error:
        cause = shortened(str(error), 1000)
        folder.update_status(state=State.failed, cause=cause)
        raise LaunchError(f"the job was not accepted: {cause}") from error
    folder.update_status(job_id=handle.job_id)
    return handle


def _announce(plan: RunPlan, handle: submitit.Job[None], console: Console) -> None:
    slurm = plan.resources.cluster is Cluster.slurm
    paths = handle.task(0).paths
    lines = [
        f"job {handle.job_id} {'is queued' if slurm else 'has started'}: {plan.run_folder}",
        f"  logs    {paths.stdout.parent} ({paths.stdout.name}, {paths.stderr.name}, and so on for each rank)",
        f"  follow  {command('tail', '-F', plan.run_folder / 'metrics.jsonl')}"
        + (f"; squeue -j {handle.job_id}" if slurm else ""),
        f"  cancel  {'scancel' if slurm else 'kill'} {handle.job_id}"
        + ("" if slurm else "  (saves a checkpoint first)"),
    ]
    if slurm:
        lines += [f"note: {said}" for said in changed_by_slurm(plan, str(handle.job_id))]
    for line in lines:
        console.print(line, markup=False, highlight=False, soft_wrap=True)
