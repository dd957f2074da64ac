"""A run that goes on under another config: what may differ, what that means, and the ways on where it may not."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from mmpretrain.config.changes import Change, changes, may_change
from mmpretrain.config.engine import OptimConfig, Schedule
from mmpretrain.config.root import Config
from mmpretrain.engine.checkpoint_files import lost
from mmpretrain.engine.schedule import lr_factor
from mmpretrain.run_folder import RunFolder
from mmpretrain.words import command, listed

LENGTH = "train.samples"


@dataclass(frozen=True)
class Differences:
    """Of what is asked for from what a run was started with. problems, notes: a sentence each. longer: whether a run
    that is complete goes on."""

    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    longer: bool = False


def differences(folder: RunFolder, stored: Config, asked: Config, step: int | None, typed: str) -> Differences:
    """What going on from the checkpoint after ``step`` steps (None: there is none) under ``asked`` means.

    typed: the command of this submission, for the commands that messages name.
    """
    # Another run.root is another spelling of the same place, or this folder would not have been found.
    found = [change for change in changes(stored, asked) if change.key != "run.root"]
    if step is None and not _holds_something(folder):
        said = f"no checkpoint yet, so that the run starts over as it is asked for now ({listed(found, between='; ')})"
        return Differences(notes=(said,) if found else ())
    fixed = [change for change in found if change.key != LENGTH and not may_change(change.key, stored, asked)]
    free = [change for change in found if change.key != LENGTH and change not in fixed]
    problems = [_refused(folder, fixed, step, typed)] if fixed else []
    notes = [f"changed since the last start: {listed(free, between='; ')}"] if free else []
    before, after = stored.total_steps, asked.total_steps
    if not fixed and after != before:
        problems += _length_problems(folder, asked, step, before, typed)
        notes += [] if problems else [_length_note(stored, asked, step or 0)]
    return Differences(tuple(problems), tuple(notes), longer=after > before and not problems)


def another_run(folder: RunFolder, typed: str, *, start: str | None = None) -> str:
    """The command of a new run beside this one. start: what it is to start from."""
    names = (f"{folder.path.name}-{number}" for number in count(2))
    name = next(name for name in names if not folder.path.with_name(name).exists())
    words = [word for word in shlex.split(typed) if not word.startswith(("run.name=", "init_from="))]
    tokens = [f"run.name={name}", *([f"init_from={start}"] if start else [])]
    return command(*words, *tokens)


def both_ways(folder: RunFolder, typed: str, step: int | None) -> str:
    """How to start anew beside a run that cannot go on: from nothing, and from where it stands."""
    ways = f"start another run: {another_run(folder, typed)}"
    if step is None:
        return ways
    return f"{ways}; or one that starts from this one: {another_run(folder, typed, start=_shown(folder.path))}"


def length_of_method(stored: Config, asked: Config, step: int, dataset_samples: int | None) -> Differences:
    """What another length means for a method whose loss depends on it. dataset_samples: of the training split."""
    if dataset_samples is None or stored.total_steps == asked.total_steps:
        return Differences()
    epochs = [samples / dataset_samples for samples in (step * asked.data.global_batch, stored.train.samples)]
    problems, notes = asked.method.other_length(epochs[0], epochs[1], asked.train.samples / dataset_samples)
    return Differences(tuple(problems), tuple(notes))


def _holds_something(folder: RunFolder) -> bool:
    """Whether something of the run would be lost if it started over."""
    return folder.release.exists() or lost(folder.checkpoints)


def _refused(folder: RunFolder, fixed: Sequence[Change], step: int | None, typed: str) -> str:
    return (
        f"{folder.path} was started with another config ({listed(fixed, between='; ')}), and these keys change its"
        f" result: give them the values from before, or {both_ways(folder, typed, step)}"
    )


def _length_problems(folder: RunFolder, asked: Config, step: int | None, before: int, typed: str) -> list[str]:
    after, batch = asked.total_steps, asked.data.global_batch
    if step is None:
        start = _shown(folder.release)
        return [
            f"{folder.path} was completed after {before} steps and its checkpoints are gone, so that it cannot go on:"
            f" start another run from its release: {another_run(folder, typed, start=start)}"
        ]
    if after >= step:
        return []
    export = command("mmpretrain", "export", _shown(folder.path), "--step", "N", "--to", "FOLDER")
    return [
        f"{LENGTH}={asked.train.samples} is {after} steps, and {folder.path} has made {step}: {LENGTH} can become"
        f" {step * batch} at least; an earlier checkpoint becomes a release by {export}"
    ]


def _length_note(stored: Config, asked: Config, step: int) -> str:
    """What the schedule does when the length changes after ``step`` steps."""
    batch, optim = asked.data.global_batch, asked.optim
    lengths = f"{LENGTH} {stored.train.samples} -> {asked.train.samples}"
    steps = f"{lengths}: {stored.total_steps} -> {asked.total_steps} steps"
    if optim.schedule is not Schedule.cosine or step >= asked.total_steps:
        return f"{steps}; the learning rate goes on as before ({optim.schedule})"
    done = _rate(optim, step, batch, stored.total_steps)
    here, there = (_rate(optim, step + 1, batch, total) for total in (stored.total_steps, asked.total_steps))
    was = f"was {done:.4g} in step {step}, would be {here:.4g} in step {step + 1} and is {there:.4g}"
    return f"{steps}; the cosine is that of the new length from now on: the learning rate {was}"


def _rate(optim: OptimConfig, step: int, batch: int, total: int) -> float:
    return optim.lr * lr_factor(optim, step * batch, total * batch)


def _shown(path: Path) -> str:
    """As short as it is from here."""
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)
