"""Which runs a command means, and in which order they are shown."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from enum import StrEnum
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from launcher.runs.reading import Reading, Standing, find_runs, read_run
from launcher.runs.sweep_folder import is_sweep, run_folders
from launcher.slurm import client as slurm_client
from mmpretrain.config.merging import nearest
from mmpretrain.console import CommandError
from mmpretrain.run_folder import DamagedFileError, RunFolder, read_json


class Order(StrEnum):
    """What runs are sorted by."""

    age = "age"
    """Who wrote something last comes first."""

    name = "name"
    """By the alphabet."""

    loss = "loss"
    """The lowest smoothed loss first."""

    step = "step"
    """The furthest first."""

    state = "state"
    """Those that go on first."""


_LAST = math.inf
_KEYS: dict[Order, Callable[[Reading], Any]] = {
    Order.age: lambda run: -(run.changed or 0.0),
    Order.name: lambda run: 0,
    Order.loss: lambda run: _LAST if run.smoothed is None or math.isnan(run.smoothed) else run.smoothed,
    Order.step: lambda run: -run.step,
    Order.state: lambda run: list(Standing).index(run.standing),
}


def ordered(runs: Iterable[Reading], order: Order) -> list[Reading]:
    """Sorted; those that are equal by their names."""
    return sorted(runs, key=lambda run: (_KEYS[order](run), run.name))


def below(root: Path) -> list[Reading]:
    """All runs below ``root``, each named by its way from there. Raises OSError."""
    paths = find_runs(root)
    jobs = _jobs(paths)
    return [read_run(path, _name(path, root), jobs) for path in paths]


def chosen(runs: Iterable[Reading], states: list[Standing], pattern: str | None, method: str | None) -> list[Reading]:
    """Those that stand so, have such a name (``*`` and ``?`` as of a shell), and learn by such a method."""
    return [
        run
        for run in runs
        if (not states or run.standing in states)
        and (pattern is None or fnmatchcase(run.name, pattern))
        and (method is None or run.method == method)
    ]


def named(words: Iterable[str], root: Path) -> list[Reading]:
    """The runs that are meant: folders of runs, or names below ``root``; a sweep means all of its runs that were
    started. Raises CommandError for each other word."""
    paths, problems = [], []
    for word in words:
        path = next((path for path in (Path(word), root / word) if _is_run(path) or is_sweep(path)), None)
        if path is None:
            problems.append(_unknown(word, root))
        elif is_sweep(path):
            paths += [run.resolve() for run in run_folders(path)]
        else:
            paths.append(path.resolve())
    if problems:
        raise CommandError(problems)
    jobs = _jobs(paths)
    return [read_run(path, _name(path, root), jobs) for path in dict.fromkeys(paths)]


def sweep_in(word: str, root: Path) -> Path | None:
    """The folder of the sweep that ``word`` means; None if it means none."""
    return next((path.resolve() for path in (Path(word), root / word) if is_sweep(path)), None)


def _is_run(path: Path) -> bool:
    return any((path / name).is_file() for name in ("status.json", "config.yaml"))


def _unknown(word: str, root: Path) -> str:
    try:
        known = [_name(path, root) for path in find_runs(root)]
    except OSError as error:
        return f"{word!r} is no folder of a run, and {error}: give a folder, or another --root"
    near = nearest(word, known)
    return f"{word!r} is no folder of a run or sweep and no name of one in {root}{near}: see `mmpretrain runs list`"


def _name(path: Path, root: Path) -> str:
    try:
        way = path.resolve().relative_to(root.resolve())
    except ValueError:
        return str(path)
    return str(way) if way.parts else path.resolve().name


def _jobs(paths: Iterable[Path]) -> Mapping[str, str] | None:
    """Slurm's living jobs, asked once, and only if a run that is not over was given to Slurm; None: no answer."""
    if not any(map(_on_slurm, paths)):
        return {}
    try:
        return slurm_client.living_jobs()
    except slurm_client.SlurmError:
        return None


def _on_slurm(path: Path) -> bool:
    try:
        folder = RunFolder(path)
        over = folder.status().get("state") == Standing.completed.value
        return not over and read_json(folder.plan).get("cluster") == "slurm"
    except (DamagedFileError, OSError):
        return False
