"""What a run folder already holds, and whether a submission may go on from there."""

from __future__ import annotations

import socket
from copy import deepcopy
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

import psutil

from launcher.planning.copied_run import Copied, holds_checkpoints, look_for_copies
from launcher.planning.going_on import Differences, differences
from launcher.planning.other_size import other_size
from launcher.ranks.controller import MODULE
from launcher.slurm import client as slurm_client
from mmpretrain.config.compose import ConfigError, load_config
from mmpretrain.config.root import Config
from mmpretrain.engine.checkpoint_files import newest_step, seen_problem, step_folder, steps
from mmpretrain.run_folder import DamagedFileError, RunFolder, State, read_json
from mmpretrain.words import listed


class Action(StrEnum):
    """What a submission does with the run folder."""

    new = "new"
    resume = "resume"
    complete = "complete"


@dataclass(frozen=True)
class History:
    """action, and for resume the step of the newest checkpoint (None: there is none yet, it starts over).

    notes: what is different since the last start. stored: the config of then, if it can be read.
    """

    action: Action = Action.new
    step: int | None = None
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    stored: Config | None = field(default=None, compare=False)


def read_history(folder: RunFolder, config: Config, world_size: int, typed: str = "") -> History:
    """Look into the run folder; nothing in it is changed. config: as composed, ``bind`` not called yet. typed: the
    command of this submission."""
    copied = None if holds_checkpoints(folder) else look_for_copies(config)
    if not folder.config.exists():
        return _from_copies(folder, copied, config, world_size, typed) if copied else History()
    step = newest_step(folder.checkpoints)
    if step is None and copied:
        step = copied.step
    try:
        stored, problems = _stored(folder)
        found = _differences(folder, stored, config, step, typed) if stored else Differences()
        size = other_size(folder, read_plan(folder), stored, config, world_size) if stored else Differences()
        problems += [*found.problems, *size.problems, *_life_problems(folder)]
        state = folder.status().get("state")
    except DamagedFileError as error:
        return History(Action.resume, step, (str(error),))
    complete = state == State.completed.value and not found.longer
    action = Action.complete if complete else Action.resume
    notes = (*found.notes, *(size.notes if action is Action.resume else ()), *_damage(folder))
    return History(action, step, tuple(problems), (*notes, *(copied.notes if copied else ())), stored)


def _from_copies(folder: RunFolder, copied: Copied, config: Config, world_size: int, typed: str) -> History:
    """Of a run that is not here, but whose checkpoints have copies."""
    if copied.step is None:
        return History(notes=copied.notes)
    with copied.as_folder() as there:
        try:
            stored, problems = _stored(there)
            found = _differences(folder, stored, config, copied.step, typed) if stored else Differences()
            size = other_size(there, read_plan(there), stored, config, world_size) if stored else Differences()
        except DamagedFileError as error:
            return History(Action.resume, copied.step, (f"{copied.place}: {error}",))
    problems += [f"{problem}; its checkpoints are in {copied.place}" for problem in (*found.problems, *size.problems)]
    return History(Action.resume, copied.step, tuple(problems), (*found.notes, *size.notes, *copied.notes), stored)


def read_plan(folder: RunFolder) -> dict[str, Any]:
    """plan.json of the last submission; empty without one. Raises DamagedFileError."""
    return read_json(folder.plan)


def living_job(folder: RunFolder) -> str | None:
    """Words for the job of the last submission if it is waiting, running or ending, else None.

    Raises SlurmError when Slurm must be asked and does not answer.
    """
    status, plan = folder.status(), read_plan(folder)
    job_id = status.get("job_id")
    if not job_id or status.get("state") == State.completed.value:
        return None
    if plan.get("cluster") == "slurm":
        state = slurm_client.job_state(job_id)
        return f"Slurm job {job_id} ({state})" if state in slurm_client.ACTIVE else None
    if plan.get("host") == socket.gethostname():
        return f"process {job_id}" if is_controller(int(job_id), folder.path / "logs") else None
    if status.get("state") in (State.queued.value, State.running.value):
        return f"process {job_id} on {plan.get('host')} (if it is gone, delete {folder.path / 'status.json'})"
    return None


def is_controller(pid: int, logs: Path) -> bool:
    """Whether the process is submitit's local controller of the run with these ``logs``, and not another process, or
    the controller of another run, that got the same number later."""
    try:
        words = psutil.Process(pid).cmdline()
    except psutil.Error:
        return False
    if not {MODULE, "submitit.local._local"} & set(words):  # the latter: of earlier versions
        return False
    named = Path(words[-1])  # gone if the folder of a living run was moved
    return not named.exists() or (logs.exists() and named.samefile(logs))


def _stored(folder: RunFolder) -> tuple[Config | None, list[str]]:
    """The config of the last start, and what is wrong with it."""
    try:
        return load_config(folder.config), []
    except ConfigError as error:
        wrong = listed(error.problems, between="; ")
        return None, [f"{folder.config} does not fit this version of the code ({wrong}): {_elsewhere(folder)}"]


def _differences(folder: RunFolder, stored: Config, config: Config, step: int | None, typed: str) -> Differences:
    asked = deepcopy(config)
    # The stored config was filled in for the number of ranks of the first start, which is not the config's business.
    if stored.method.name == asked.method.name:
        asked.method.bind_as(stored.method)
    return differences(folder, stored, asked, step, typed)


def _damage(folder: RunFolder) -> list[str]:
    """Notes about the newest checkpoints if they are damaged at first sight: an older one is taken then."""
    notes: list[str] = []
    for step in steps(folder.checkpoints):
        place = step_folder(folder.checkpoints, step)
        if (problem := seen_problem(place)) is None:
            return [f"{note}: the run goes on after step {step}" for note in notes]
        notes.append(f"{place.name} is damaged ({problem})")
    return [f"{note}: no checkpoint of this run can be used as it is" for note in notes]


def _life_problems(folder: RunFolder) -> list[str]:
    try:
        job = living_job(folder)
    except slurm_client.SlurmError as error:
        sure = f"if it certainly is gone, set job_id to null in {folder.path / 'status.json'}"
        return [
            f"{folder.path}: whether its last job still runs is not known ({error}): give the command where Slurm"
            f" answers, or, {sure}"
        ]
    return [f"{folder.path} is in use by {job}: wait for it, cancel it, or use another run.name"] if job else []


def _elsewhere(folder: Path | RunFolder) -> str:
    path = folder.path if isinstance(folder, RunFolder) else folder
    return f"use another run.name, or remove {path} to start over"
