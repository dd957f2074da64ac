"""A sweep as a whole: how its runs stand, and which of them is best."""

from __future__ import annotations

import math
import os
import signal
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from launcher.runs import compare as runs_compare
from launcher.runs.choice import named
from launcher.runs.reading import Life, Reading
from launcher.runs.show import words_of
from launcher.runs.sweep_folder import living_launcher, not_started, read_record
from launcher.runs.sweep_known import listed_states
from launcher.runs.view import ABSENT, COLORS, number
from mmpretrain.config.evaluation_sections import LOWER_IS_BETTER
from mmpretrain.config.merging import nearest
from mmpretrain.console import CommandError
from mmpretrain.records import MAIN, Score
from mmpretrain.words import command, listed, without_secrets

LOSS = "loss"


def facts(folder: Path) -> dict[str, Any]:
    """What a sweep is and how it stands; JSON can hold it. Raises CommandError, DamagedFileError."""
    record, runs = read_record(folder), named([str(folder)], folder.parent)
    waiting, launcher = not_started(folder), living_launcher(folder)
    return {
        "sweep": str(folder),
        "runs": {standing.value: count for standing, count in listed_states(runs).items()},
        "not started": waiting,
        "launcher": None if launcher is None else f"process {launcher}",
        "command": without_secrets(str(record.get("command") or "")) or None,
        "directory": record.get("directory"),
        "how to go on": _next(folder, runs, waiting),
    }


def _next(folder: Path, runs: Sequence[Reading], waiting: Sequence[str]) -> str:
    if any(run.may_live for run in runs):
        return f"it goes on: {command('mmpretrain', 'runs', 'cancel', folder)} ends it"
    if waiting or listed_states(runs).keys() - {"completed"}:
        return f"{command('mmpretrain', 'runs', 'resume', folder)} starts what is not complete"
    return command("mmpretrain", "runs", "compare", folder)


def facts_view(told: dict[str, Any]) -> RenderableType:
    """The same for people."""
    states = ", ".join(f"{count} {standing}" for standing, count in told["runs"].items())
    waiting = told["not started"]
    rows = {**told, "runs": states, "not started": f"{len(waiting)}: {listed(waiting)}" if waiting else None}
    made = Table(box=None, show_header=False, pad_edge=False)
    for name, value in rows.items():
        if value:
            made.add_row(Text(name, style="bold"), Text(str(value)))
    return made


def score_of(runs: Sequence[Reading], by: str | None) -> str:
    """The whole name of the score that ``by`` means, or part of its name; by itself what says most. Raises CommandError
    for one that no run has, and for a part of several."""
    known = list(runs_compare.scores(runs))
    if by is None:
        telling = [key for end in MAIN for key in known if key.rpartition("/")[2] == end]
        return telling[0] if telling else LOSS
    if by == LOSS or by in known:
        return by
    found = [key for key in known if by in key]
    if len(found) == 1:
        return found[0]
    if found:
        raise CommandError([f"--by {by} may be {listed(found)}: give the whole name"])
    there = f"there are {listed(known)}, and {LOSS}" if known else f"no run is evaluated yet, so there is only {LOSS}"
    raise CommandError([f"--by {by}: no run has this score{nearest(by, known)}: {there}"])


def ranked(runs: Sequence[Reading], score: str) -> list[tuple[Reading, Score | float | None]]:
    """The runs with that score (or the smoothed loss), the best first, those without at the end."""
    of_runs = runs_compare.scores(runs).get(score) if score != LOSS else [run.smoothed for run in runs]
    pairs = list(zip(runs, of_runs or [None] * len(runs), strict=True))
    sign = 1 if score == LOSS or score.rpartition("/")[2] in LOWER_IS_BETTER else -1

    def place(pair: tuple[Reading, Score | float | None]) -> tuple[float, str]:
        value = _value(pair[1])
        return (math.inf if value is None or math.isnan(value) else sign * value), pair[0].name

    return sorted(pairs, key=place)


def ranking_view(runs: Sequence[Reading], score: str) -> RenderableType:
    """A line per run: the settings that differ, its state, that score, its loss; the best one first."""
    rows = ranked(runs, score)
    order = [run for run, _ in rows]
    differ = runs_compare.differences(order)
    made = Table(box=None, pad_edge=False)
    for column in ("run", *differ, "state", *([] if score == LOSS else [score]), LOSS):
        made.add_column(column, overflow="fold")
    for at, (run, value) in enumerate(rows):
        cells = [Text(ABSENT if values[at] is None else str(values[at])) for values in differ.values()]
        told = [] if score == LOSS else [Text(_shown(value))]
        loss = Text(ABSENT if run.smoothed is None else f"{run.smoothed:.4f}")
        made.add_row(Text(run.name), *cells, Text(run.standing.value, style=COLORS.get(run.standing, "")), *told, loss)
    title = f"{len(rows)} runs, the best {score} first" + ("" if score != LOSS else " (the lowest)")
    return Group(Text(title), Text(), made)


def ranking_json(runs: Sequence[Reading], score: str) -> dict[str, Any]:
    """The same as JSON."""
    rows = ranked(runs, score)
    differ = runs_compare.differences([run for run, _ in rows])
    return {
        "by": score,
        "runs": [
            {
                "name": run.name,
                "path": str(run.path),
                "state": run.standing.value,
                "config": {key: values[at] for key, values in differ.items()},
                "value": _value(value),
                "loss_smoothed": run.smoothed,
            }
            for at, (run, value) in enumerate(rows)
        ],
    }


def restart_words(folder: Path) -> list[str]:
    """What follows ``mmpretrain`` to start the sweep again. Raises CommandError."""
    words = words_of(str(read_record(folder).get("command") or ""))
    if words[:1] == ["python"] and words[1:2] and Path(words[1]).name == "submit.py":
        return ["train", *words[2:]]
    if words[:1] == ["python"] and words[1:2] and Path(words[1]).name == "mmpretrain_command.py":
        return words[2:]
    if words[1:]:
        return words[1:]
    raise CommandError([f"{folder} has no command in its sweep.json: give it anew"])


def directory_of(folder: Path) -> Path:
    """Where the sweep's relative paths start. Raises CommandError if it is gone."""
    directory = Path(str(read_record(folder).get("directory") or Path.cwd()))
    if not directory.is_dir():
        raise CommandError([f"{directory}, where {folder} was started, is gone: its relative paths start there"])
    return directory


def living(runs: Sequence[Reading]) -> list[Reading]:
    """Those of a sweep that may be alive, the waiting ones first, which could else take the place of one that ends."""
    return sorted((run for run in runs if run.may_live), key=lambda run: run.job.life is not Life.waiting)


def stop_launcher(folder: Path) -> str | None:
    """Tell what runs a sweep on this machine to start no more; what was done, in words, None if nothing runs it."""
    launcher = living_launcher(folder)
    if launcher is None:
        return None
    with suppress(ProcessLookupError):
        os.kill(launcher, signal.SIGTERM)
    return f"process {launcher} starts no more runs"


def _value(score: Score | float | None) -> float | None:
    return score.value if isinstance(score, Score) else score


def _shown(score: Score | float | None) -> str:
    if not isinstance(score, Score):
        return ABSENT if score is None else f"{score:.4f}"
    said = number(score, score.value)
    if score.low is None or score.high is None:
        return said
    return f"{said} ({number(score, score.low)} to {number(score, score.high)})"
