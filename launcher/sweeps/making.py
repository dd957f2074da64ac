"""Making the plan of a sweep: runs composed, compared with what is there, checked, each problem told once."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from launcher.planning.plan import Draft, PlanError, drafted, finished
from launcher.planning.previous_run import Action
from launcher.planning.resources import Request, Resources, choose
from launcher.runs.reading import Life, Standing
from launcher.runs.sweep_known import Known, same_run
from launcher.runs.sweep_names import Settings, names_of, settings_of, sweep_name
from launcher.sweeps.models import check_models
from launcher.sweeps.plan import Composer, Element, Fate, SweepPlan
from launcher.sweeps.problems import Problems
from launcher.sweeps.values import Wanted, key_of
from mmpretrain.config.root import Config

OPTIONS = {"--sweep": 0, "--sweep-file": 1, "--at-once": 1}  # of the command line, with their numbers of values


@dataclass
class _Run:
    """An element while it is made."""

    own: tuple[str, ...]
    config: Config
    settings: Settings
    notes: tuple[str, ...]
    name: str = ""
    label: str = ""
    draft: Draft | None = field(default=None, repr=False)


def make_sweep(asked: Wanted, request: Request, composed: Composer, words: Sequence[str]) -> SweepPlan:
    """Compose and check every run of a sweep.

    words: the command as it was typed. Raises PlanError with the problems of all runs, each of them once.
    """
    problems = Problems(len(asked.own))
    runs = _composed(asked, composed, problems)
    problems.stop()
    root, name = _place(runs, asked)
    folder = Path(os.path.abspath(root)) / name
    if any((folder / file).exists() for file in ("config.yaml", "plan.json")):
        raise PlanError([f"{folder} is the folder of a run: give the sweep another name, run.name=NAME"])
    _named(runs, asked, folder, problems)
    chosen, known = choose(request), Known(Path(os.path.abspath(root)))
    elements = []
    seen: dict[str, Element] = {}
    for run in runs:
        element = _element(run, folder, known, seen, problems)
        if element.fate is Fate.start:
            if (element.folder / "config.yaml").exists():
                _compose_again(run, element, asked, composed, problems)
            element = _drafted(run, element, chosen, request, problems)
        elements.append(element)
        seen.setdefault(run.settings.digest, element)
    problems.stop()
    resources, notes, _ = chosen
    assert resources is not None  # else there were problems
    elements = _planned(runs, elements, request, problems, partial(_alone, words, asked, folder))
    problems.stop()
    return SweepPlan(
        name, folder, asked.shared, tuple(elements), resources, shlex.join(words), _shared_notes(elements, notes)
    )


def _composed(asked: Wanted, composed: Composer, problems: Problems) -> list[_Run]:
    runs = []
    for own in asked.own:
        tokens, label = [*asked.shared, *own], " ".join(own)
        try:
            found = composed(tokens, None)
        except PlanError as error:
            problems.add(error.problems, label)
            continue
        runs.append(_Run(own, found.config, settings_of(found.config, tokens, asked.keys), found.notes, label=label))
    return runs


def _place(runs: Sequence[_Run], asked: Wanted) -> tuple[str, str]:
    """The root and the name of the sweep's folder."""
    if "run.root" in asked.keys:
        raise PlanError(["run.root is the place of the whole sweep: give it once, for all runs"])
    said = [token for token in asked.shared if key_of(token) == "run.name"]
    name = runs[0].settings.base if said else sweep_name([run.settings.base for run in runs])
    return runs[0].config.run.root, name


def _named(runs: Sequence[_Run], asked: Wanted, folder: Path, problems: Problems) -> None:
    own = "run.name" in asked.keys
    names = [run.settings.base for run in runs] if own else names_of([run.settings for run in runs])
    owners: dict[str, str] = {}
    for run, name in zip(runs, names, strict=True):
        run.name = name
        run.config.run.root, run.config.run.name = str(folder), name
        if owners.setdefault(name, run.settings.digest) != run.settings.digest:
            problems.add([f"run.name={name} is given to runs of different settings: give each its own"], run.label)


def _element(run: _Run, folder: Path, known: Known, seen: Mapping[str, Element], problems: Problems) -> Element:
    """What becomes of a run, as far as the runs that there are already say it."""
    element = Element(run.name, run.own, run.settings.values, folder / run.name)
    if (first := seen.get(run.settings.digest)) is not None:
        return replace(element, folder=first.folder, fate=Fate.double, why=f"the same settings as {first.name}")
    here = known.at(element.folder)
    if here is not None and here.job.life in (Life.waiting, Life.alive):
        if not same_run(here, run.config, run.settings):
            problems.add([f"{here.path} is in use by {here.job.words}, with other settings: wait for it, or cancel it"],
                         run.name, here.path)  # fmt: skip
        return replace(element, fate=Fate.living, why=f"{here.standing}: {here.job.words}")
    if here is not None:
        return element
    other = known.same(run.config, run.settings, element.folder)
    if other is None:
        return element
    if other.may_live:
        return replace(element, folder=other.path, fate=Fate.living, why=f"{other.path}: {other.job.words}")
    if other.standing is Standing.completed:
        return replace(element, folder=other.path, fate=Fate.complete, why=f"{other.path} has the same settings")
    if other.path.parent == folder:  # of an earlier sweep of this name, which differed in other keys
        run.name, run.config.run.name = other.path.name, other.path.name
        return replace(element, name=other.path.name, folder=other.path)
    note = f"{other.path} has the same settings and stopped after {other.step} steps: {run.name} starts anew beside it"
    run.notes = (*run.notes, note)
    return element


def _compose_again(run: _Run, element: Element, asked: Wanted, composed: Composer, problems: Problems) -> None:
    """Of a run that is there already: what it was started with may decide what a command leaves open."""
    try:
        found = composed([*asked.shared, *run.own], element.folder)
    except PlanError as error:
        problems.add(error.problems, run.name, element.folder)
        return
    run.config = found.config
    run.config.run.root, run.config.run.name = str(element.folder.parent), element.folder.name


def _drafted(
    run: _Run,
    element: Element,
    chosen: tuple[Resources | None, list[str], list[str]],
    request: Request,
    problems: Problems,
) -> Element:
    try:
        run.draft = drafted(run.config, (chosen[0], [], chosen[2]), request.purpose)
    except PlanError as error:
        problems.add(_of_sweep(error.problems, element), run.name, element.folder)
        return element
    if run.draft.history.action is Action.complete:
        run.draft = None
        return replace(element, fate=Fate.complete)
    return element


def _of_sweep(problems: Sequence[str], element: Element) -> list[str]:
    """What is said of single runs, with the way on that a sweep has: ``run.name`` names all of it."""
    other, sweep = re.compile(rf"run\.name={re.escape(element.folder.name)}-\d+"), element.folder.parent.name
    return [other.sub(f"run.name={sweep}-2", problem) for problem in problems]


def _planned(
    runs: Sequence[_Run],
    elements: Sequence[Element],
    request: Request,
    problems: Problems,
    alone: Callable[[_Run], str],
) -> list[Element]:
    """The elements with the plans of those that start, all of whose models are checked in one process."""
    drafts = [run.draft for run in runs if run.draft is not None]
    found = dict(zip(map(id, drafts), check_models(drafts, request.purpose), strict=True))
    planned = []
    for run, element in zip(runs, elements, strict=True):
        if run.draft is not None:
            try:
                plan = finished(run.draft, found[id(run.draft)], run.notes)
                element = replace(element, plan=replace(plan, command=alone(run)))
            except PlanError as error:
                problems.add(_of_sweep(error.problems, element), run.name, element.folder)
        planned.append(element)
    return planned


def _shared_notes(elements: Sequence[Element], first: Sequence[str]) -> tuple[str, ...]:
    """Each note once, and how many runs it is of."""
    of: dict[str, list[str]] = {}
    for element in elements:
        for note in element.plan.notes if element.plan is not None else ():
            of.setdefault(note, []).append(element.name)
    count = sum(element.plan is not None for element in elements)
    return (
        *first,
        *(note if len(names) == count else f"{note} ({_whose(names, count)})" for note, names in of.items()),
    )


def _whose(names: Sequence[str], count: int) -> str:
    return names[0] if len(names) == 1 else f"{len(names)} of {count} runs, {names[0]} the first"


def _alone(words: Sequence[str], asked: Wanted, folder: Path, run: _Run) -> str:
    """The command that starts one run of a sweep by itself. words: of the whole sweep."""
    kept, skip = [], 0
    tokens = {*asked.shared, *asked.typed}
    for word in words:
        option, equals, _ = word.partition("=")
        if skip:
            skip -= 1
        elif option in OPTIONS:
            skip = 0 if equals else OPTIONS[option]
        elif word not in tokens:
            kept.append(word)
    place = [f"run.root={folder}", f"run.name={run.name}"]
    tokens_of_run = [token for token in (*asked.shared, *run.own) if key_of(token) not in ("run.root", "run.name")]
    return shlex.join([*kept, *tokens_of_run, *place])
