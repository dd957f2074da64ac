"""The runs of a sweep as one array of Slurm. Each element is a run like any other: its folder, its logs, its requeues.

Slurm knows elements by their numbers, and runs lie in folders by their names: for each submission, a folder of links
``.arrays/SUBMISSION/ELEMENT`` leads from one to the other.
"""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from itertools import count
from pathlib import Path

from rich.console import Console
from submitit.core.utils import (
    CommandFunction,
    DelayedSubmission,
    FailedSubmissionError,
    JobPaths,
    UncompletedJobError,
)
from submitit.slurm.slurm import SlurmExecutor

from launcher.launching.executors import PYTHON, Executor, Renderer, log_folder, rendered, slurm_parameters
from launcher.launching.launch import LaunchError, as_it_stands, only_launcher, prepare
from launcher.launching.slurm_check import changed_by_slurm
from launcher.planning.plan import RunPlan
from launcher.ranks.job import Job
from launcher.slurm import client as slurm_client
from launcher.slurm.submitting_shell import KEPT_BACK, submitting
from launcher.sweeps.follow import follow_array
from launcher.sweeps.plan import SweepPlan
from launcher.sweeps.record import CODE, shared_code
from mmpretrain.endings import Ending
from mmpretrain.run_folder import DamagedFileError, RunFolder, State
from mmpretrain.words import command, shortened

ARRAYS = ".arrays"
MAX_TIMEOUTS = 3  # of submitit's own requeueing, which our jobs do not use


def array_script(plan: SweepPlan) -> str:
    """The script that :func:`submit_array` would hand to sbatch, but for the two folders that are named by a number and
    by what the code is."""
    return _script(plan, plan.folder / ARRAYS / "SUBMISSION", plan.folder / CODE / "COPY")


def array_problems(plan: SweepPlan) -> list[str]:
    """What stands against the array, one sentence each."""
    found = []
    if "%" in str(plan.folder):
        found.append(f"{plan.folder} has a % in it, which Slurm takes for itself in an array: use another run.root")
    try:
        most = slurm_client.array_limit()
    except slurm_client.SlurmError:
        most = len(plan.starting)  # a dry run beside no cluster; sbatch will say it
    if len(plan.starting) > most:
        found.append(
            f"{len(plan.starting)} runs are more than an array may have here ({most}): give the sweep in parts"
        )
    return found


def submit_array(plan: SweepPlan, console: Console, job: Callable[[Path], Job] = Job, *, follow: bool) -> int:
    """Submit what the sweep starts as one array, and follow it if asked; the exit code. Raises LaunchError.

    job: what the ranks of the run in a folder do.
    """
    try:
        snapshot, code = shared_code(plan.folder)
        with ExitStack() as stack:
            for run in plan.starting:
                stack.enter_context(only_launcher(run))
            runs = [as_it_stands(run) for run in plan.starting]
            for run in runs:
                prepare(run, snapshot)
            ids = _submitted(replace_plans(plan, runs), code, job)
    except OSError as error:
        raise LaunchError(f"{error.filename or plan.folder}: {error.strerror or shortened(str(error))}") from error
    except DamagedFileError as error:
        raise LaunchError(str(error)) from error
    _announce(plan, ids, console)
    if not follow:
        return Ending.completed.code
    return follow_array(plan, dict(zip(ids, [run.run_folder for run in runs], strict=True)), console)


def replace_plans(plan: SweepPlan, runs: Sequence[RunPlan]) -> SweepPlan:
    """The sweep with ``runs`` in the place of the plans of those that start."""
    left = iter(runs)
    elements = (replace(element, plan=next(left)) if element.plan else element for element in plan.elements)
    return replace(plan, elements=tuple(elements))


def _submitted(plan: SweepPlan, code: Path, job: Callable[[Path], Job]) -> list[str]:
    """The elements' job ids, which are in the run folders by then. Raises LaunchError."""
    runs = plan.starting
    links = _linked(plan.folder / ARRAYS, runs)
    path = links / "submission.sh"
    path.write_text(_script(plan, links, code))
    try:
        with submitting(kept_back=KEPT_BACK):
            said = CommandFunction(_executor(Executor, plan, links)._make_submission_command(path), verbose=False)()
        array = SlurmExecutor._get_job_id_from_submission_command(said)
    except (FailedSubmissionError, UncompletedJobError, subprocess.CalledProcessError) as error:
        cause = shortened(str(error), 1000)
        for run in runs:
            RunFolder(run.run_folder).update_status(state=State.failed, cause=cause)
        raise LaunchError(f"the array was not accepted: {cause}") from error
    ids = [f"{array}_{number}" for number in range(len(runs))]
    try:
        for run, job_id in zip(runs, ids, strict=True):
            _hand_over(run, job_id, job(run.run_folder))
    except OSError:  # a full disk: elements of which no run folder knows must not start
        with suppress(slurm_client.SlurmError):
            slurm_client.cancel(array)
        raise
    for run, job_id in zip(runs, ids, strict=True):  # first what an element waits for, that may start by now
        RunFolder(run.run_folder).update_status(job_id=job_id)
    return ids


def _linked(folder: Path, runs: Sequence[RunPlan]) -> Path:
    """A new folder with a link to each run, by its number."""
    folder.mkdir(exist_ok=True)
    for number in count(1):
        links = folder / str(number)
        try:
            links.mkdir()
            break
        except FileExistsError:
            continue
    for number, run in enumerate(runs):
        log_folder(run.run_folder).mkdir(parents=True, exist_ok=True)
        (links / str(number)).symlink_to(os.path.relpath(run.run_folder, links))
    return links


def _hand_over(run: RunPlan, job_id: str, job: Job) -> None:
    """Leave what the element loads, where it waits for it: at once whole."""
    assert run.resources.profile is not None
    task = DelayedSubmission(job)
    task.set_timeout(run.resources.profile.time_limit_min, MAX_TIMEOUTS)
    target = JobPaths(log_folder(run.run_folder), job_id).submitted_pickle
    fresh = target.with_suffix(".new")
    task.dump(fresh)
    fresh.rename(target)


def _executor(kind: type[SlurmExecutor], plan: SweepPlan, links: Path) -> SlurmExecutor:
    return kind(links / "%a" / "logs", python=PYTHON)


def _script(plan: SweepPlan, links: Path, code: Path) -> str:
    run = f'{shlex.quote(str(links))}/"$SLURM_ARRAY_TASK_ID"'
    parameters = slurm_parameters(plan.starting[0], run, code) | {"job_name": plan.name}
    kept = {key: value for key, value in parameters.items() if value is not None}
    executor = _executor(Renderer, plan, links)
    number = len(plan.starting)
    kept |= {"map_count": number, "array_parallelism": plan.at_once or number}
    return rendered(executor._submitit_command_str, str(executor.folder), kept)


def _announce(plan: SweepPlan, ids: Sequence[str], console: Console) -> None:
    array, folder = ids[0].partition("_")[0], _shown(plan.folder)
    lines = [
        f"array {array} is queued: {len(ids)} runs in {plan.folder}",
        f"  see     {command('mmpretrain', 'runs', 'list', '--root', folder)}; squeue -j {array}",
        f"  compare {command('mmpretrain', 'runs', 'compare', folder)}",
        f"  cancel  {command('mmpretrain', 'runs', 'cancel', folder)}; of one run, its folder",
        *(f"note: {said}" for said in changed_by_slurm(plan.starting[0], ids[-1])),
    ]
    for line in lines:
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def _shown(folder: Path) -> Path:
    """As short as it is from here."""
    here = Path.cwd()
    return folder.relative_to(here) if folder.is_relative_to(here) else folder
