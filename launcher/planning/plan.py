"""RunPlan: everything that a submission does, decided and checked before anything starts. No torch here."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from launcher.planning import checks
from launcher.planning.changed_data import changed_data
from launcher.planning.checks import Batches, Findings
from launcher.planning.going_on import Differences, length_of_method
from launcher.planning.predicted import device_words, prediction_notes
from launcher.planning.previous_run import Action, History, read_history
from launcher.planning.resources import Purpose, Request, Resources, choose
from launcher.ranks.exclusion import notes as left_out
from launcher.slurm.setup_lines import setup_problems
from launcher.slurm.submitting_shell import passed_on
from mmpretrain.config.choices import Choices
from mmpretrain.config.compose import ConfigError, compose
from mmpretrain.config.root import Config
from mmpretrain.data.discovery import Discovery
from mmpretrain.data.source_checks import use_notes
from mmpretrain.run_folder import RunFolder


class PlanError(ValueError):
    """The request cannot run; ``problems`` holds one sentence each."""

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = list(problems)
        super().__init__("\n".join(self.problems))


@dataclass(frozen=True)
class RunPlan:
    """A submission.

    run_folder: absolute. directory: where relative paths of the config start. composed: the config before what
    depends on the number of ranks was filled in. action, step: start anew, continue after a step, or nothing to do.
    command: what starts this run again. prediction: what it will need (docs/prediction.md), None if that is not known.
    """

    run_folder: Path
    directory: Path
    composed: Config
    config: Config
    resources: Resources
    batches: Batches
    action: Action
    step: int | None = None
    notes: tuple[str, ...] = ()
    command: str = ""
    prediction: dict[str, Any] | None = None

    def to_json(self) -> dict[str, Any]:
        """The content of plan.json."""
        resources = asdict(self.resources)
        return {
            "run_folder": str(self.run_folder),
            "directory": str(self.directory),
            "host": socket.gethostname(),
            "command": self.command,
            "action": self.action.value,
            "step": self.step,
            "world_size": self.resources.world_size,
            **resources,
            "cluster": self.resources.cluster.value,
            "batches": {**asdict(self.batches), "epochs": self.batches.epochs},
            "prediction": self.prediction,
            "notes": list(self.notes),
            "config": OmegaConf.to_container(OmegaConf.structured(self.config), enum_to_str=True),
        }


@dataclass(frozen=True)
class Draft:
    """A run of which everything but its model was checked. composed: before what depends on the number of ranks was
    filled in. notes: of machines and data."""

    composed: Config
    config: Config
    resources: Resources
    history: History
    notes: tuple[str, ...]
    command: str


def make_plan(
    tokens: Sequence[str],
    request: Request,
    base: Path | None = None,
    command: str = "",
    look: Discovery | None = None,
) -> RunPlan:
    """Compose the config (see ``compose``), choose machines, check everything.

    base: a config to start from. command: how to say it again. look: what looks into the folders of the data.

    Raises PlanError with every problem that could be found.
    """
    problems: list[str] = []
    choices, look = Choices(request.config_dir), look or Discovery()
    config = _composed(tokens, base, choices, look, problems)
    draft = drafted(config, choose(request), request.purpose, command, problems)
    world, devices = draft.resources.world_size, device_words(draft.resources)
    starts = draft.history.step is None
    model = checks.check_model(draft.config, request.purpose, world, starts=starts, devices=devices)
    return finished(draft, model, (*choices.notes(), *look.notes))


def drafted(
    config: Config | None,
    chosen: tuple[Resources | None, list[str], list[str]],
    purpose: Purpose,
    command: str = "",
    known: Sequence[str] = (),
) -> Draft:
    """Check all but the model. config: as composed, changed here; None: it has ``known`` problems. chosen: what
    :func:`launcher.planning.resources.choose` found. Raises PlanError with every problem that could be found."""
    composed = deepcopy(config)
    resources, notes, found = chosen
    problems, notes = [*known, *found], list(notes)
    history = History()
    if config is not None:
        data = checks.check_data(config, purpose)
        problems += data.problems
        notes += data.notes
    if config is not None and composed is not None and resources is not None:
        history = read_history(run_folder(config), composed, resources.world_size, command)
        # What defaults to the local batch is fixed at the first start and stored with the run.
        bound = history.step is not None and history.stored is not None
        if history.stored is not None and bound and history.stored.method.name == config.method.name:
            config.method.bind_as(history.stored.method)
        else:
            config.method.bind(config.data.global_batch // resources.world_size)
        problems += [*checks.check_batches(config, resources, bound=bound), *config.tracking.not_installed()]
        problems += [*history.problems, *_folder_problems(run_folder(config).path), *_setup_problems(resources)]
    if problems or config is None or composed is None or resources is None:
        raise PlanError(problems)
    return Draft(composed, config, resources, history, tuple(notes), command)


def finished(draft: Draft, model: Findings, first: Sequence[str] = ()) -> RunPlan:
    """The plan of a draft whose model was checked. first: notes that come before all others. Raises PlanError."""
    if model.problems:
        raise PlanError(model.problems)
    config, history, resources = draft.config, draft.history, draft.resources
    batches = checks.batches(config, resources)
    again = _again(history, config, batches, draft.command)
    if again.problems:
        raise PlanError(again.problems)
    said = use_notes(batches.sources)
    return RunPlan(
        run_folder=run_folder(config).path,
        directory=Path.cwd(),
        composed=draft.composed,
        config=config,
        resources=resources,
        batches=batches,
        action=history.action,
        step=history.step,
        notes=(
            *first,
            *again.notes,
            *draft.notes,
            *said,
            *_job_notes(resources),
            *model.notes,
            *left_out(run_folder(config)),
            *prediction_notes(model.prediction, config, resources, run_folder(config).path),
        ),
        command=draft.command,
        prediction=model.prediction,
    )


def _composed(
    tokens: Sequence[str], base: Path | None, choices: Choices, look: Discovery, problems: list[str]
) -> Config | None:
    try:
        return compose(tokens, base, choices, look)
    except ConfigError as error:
        problems += error.problems
        return None


def _again(history: History, config: Config, batches: Batches, command: str) -> Differences:
    """What is to be said of a run that goes on: its config, its length, its data."""
    if history.stored is None:
        return Differences(notes=history.notes)
    if history.step is None:
        return Differences(notes=history.notes)
    length = length_of_method(history.stored, config, history.step, batches.dataset_samples)
    data = changed_data(run_folder(config), history.stored, config, history.step, command)
    return Differences((*length.problems, *data.problems), (*history.notes, *length.notes, *data.notes))


def run_folder(config: Config) -> RunFolder:
    """The folder of the run that a config describes."""
    assert config.run.name is not None  # compose fills it in
    return RunFolder(Path(os.path.abspath(config.run.root)) / config.run.name)


def _folder_problems(folder: Path) -> list[str]:
    """The logs lie in the run folder, and submitit replaces these in their paths."""
    found = [sign for sign in ("%j", "%t", "%A", "%a") if sign in str(folder)]
    if not found:
        return []
    return [
        f"{folder} has {found[0]} in it, which stands for a number in paths of logs: use another run.root or run.name"
    ]


def _setup_problems(resources: Resources) -> list[str]:
    return setup_problems(resources.profile.setup) if resources.profile is not None else []


def _job_notes(resources: Resources) -> list[str]:
    profile = resources.profile
    if profile is None:
        return []
    notes = passed_on(profile)
    if profile.time_limit_min < 15:
        notes.append(f"time_limit_min is {profile.time_limit_min}: a job this short spends much of its time starting")
    return notes
