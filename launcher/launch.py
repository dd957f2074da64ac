"""Carry out a plan: prepare the run folder, submit, and follow if asked."""

from __future__ import annotations

import json
import subprocess

import submitit
from rich.console import Console
from submitit.core.utils import FailedSubmissionError, UncompletedJobError

from launcher.executors import submit
from launcher.follow import Exit, follow
from launcher.job import Job
from launcher.plan import RunPlan
from launcher.resources import Cluster
from launcher.snapshot import take_snapshot
from mmpretrain.config import save_config
from mmpretrain.files import replace_text
from mmpretrain.run_folder import RunFolder, State


class LaunchError(RuntimeError):
    """The run folder cannot be written, or the cluster refused the job; ``problems`` holds one sentence."""

    def __init__(self, problem: str) -> None:
        self.problems = [problem]
        super().__init__(problem)


def launch(plan: RunPlan, console: Console, job: Job | None = None, *, follow_it: bool) -> Exit:
    """Submit ``plan`` and return what the launcher should exit with. Raises LaunchError."""
    try:
        prepare(plan)
        handle = _submitted(plan, job or Job(plan.run_folder))
    except OSError as error:
        raise LaunchError(f"{error.filename or plan.run_folder}: {error.strerror}") from error
    if follow_it:
        if plan.resources.cluster is Cluster.slurm:
            _announce(plan, handle, console)
        return follow(plan, handle, console)
    _announce(plan, handle, console)
    return Exit.completed


def prepare(plan: RunPlan) -> None:
    """Write config, code snapshot, plan and status into the run folder."""
    folder = RunFolder(plan.run_folder)
    folder.path.mkdir(parents=True, exist_ok=True)
    take_snapshot(folder.path)
    replace_text(folder.plan, json.dumps(plan.to_json(), indent=1))
    folder.update_status(state=State.queued, job_id=None, cause=None, total_steps=plan.batches.steps)
    save_config(plan.config, folder.config)


def _submitted(plan: RunPlan, job: Job) -> submitit.Job[None]:
    folder = RunFolder(plan.run_folder)
    try:
        handle = submit(plan, job)
    except (FailedSubmissionError, UncompletedJobError, subprocess.CalledProcessError) as error:
        cause = " ".join(str(error).split())
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
        f"  follow  tail -F {plan.run_folder / 'metrics.jsonl'}" + (f"; squeue -j {handle.job_id}" if slurm else ""),
        f"  cancel  {'scancel' if slurm else 'kill'} {handle.job_id}"
        + ("" if slurm else "  (saves a checkpoint first)"),
    ]
    for line in lines:
        console.print(line, markup=False, highlight=False, soft_wrap=True)
