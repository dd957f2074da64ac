"""Runs in words and tables."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from launcher.runs.reading import Reading, Standing, age
from mmpretrain.comparison.rows import NO_SHARES
from mmpretrain.records import Score, parse_scores, read_evaluation
from mmpretrain.run_folder import RunFolder
from mmpretrain.words import shortened

COLORS = {
    Standing.running: "green",
    Standing.queued: "cyan",
    Standing.preempted: "yellow",
    Standing.failed: "red",
    Standing.lost: "red",
    Standing.damaged: "magenta",
}
ABSENT = "-"


def as_json(run: Reading) -> dict[str, Any]:
    """The row of a run; what is not known is null."""
    seconds = age(run)
    return {
        "name": run.name,
        "path": str(run.path),
        "state": run.standing.value,
        "job": run.job.words,
        "method": run.method,
        "data": run.data,
        "step": run.step,
        "total_steps": run.total,
        "loss": run.loss,
        "loss_smoothed": run.smoothed,
        "samples_per_s": run.speed,
        "eta_s": run.left_s,
        "checkpoint": run.checkpoint,
        "age_s": None if seconds is None else round(seconds, 1),
        "cause": run.cause,
        "ending": run.ending and run.ending.name,
        "exit_code": run.ending and run.ending.code,
    }


def list_view(runs: Sequence[Reading]) -> RenderableType:
    """One line per run, and below them the causes of their ends, where there are any."""
    if not runs:
        return "no runs"
    made = Table(box=None, pad_edge=False)
    for column in ("run", "state", "step", "loss", "mean", "samples/s", "ETA", "saved", "age"):
        right = column in ("step", "loss", "mean", "samples/s", "saved")
        made.add_column(column, justify="right" if right else "left", overflow="fold", no_wrap=column != "run")
    causes = []
    for run in runs:
        made.add_row(*row(run))
        if run.cause and run.standing is not Standing.completed:
            causes.append(Text(f"{run.name}: {shortened(run.cause, 200)}", style="dim"))
    return Group(made, Text(), *causes) if causes else made


def row(run: Reading) -> list[Text]:
    """The cells of a run's line."""
    steps = f"{run.step:,}" if run.total is None else f"{run.step:,}/{run.total:,}"
    return [
        Text(run.name),
        Text(run.standing.value, style=COLORS.get(run.standing, "")),
        Text(steps),
        Text(ABSENT if run.loss is None else f"{run.loss:.4f}"),
        Text(ABSENT if run.smoothed is None else f"{run.smoothed:.4f}"),
        Text(ABSENT if run.speed is None else f"{run.speed:,.0f}"),
        Text(duration(run.left_s)),
        Text(ABSENT if run.checkpoint is None else f"{run.checkpoint:,}"),
        Text(duration(age(run))),
    ]


def duration(seconds: float | None) -> str:
    """``2 d 3 h``, ``3 h 5 min``, ``5 min``, ``12 s``."""
    if seconds is None:
        return ABSENT
    whole = timedelta(seconds=round(seconds))
    hours, minutes = whole.seconds // 3600, whole.seconds // 60 % 60
    if whole.days:
        return f"{whole.days} d {hours} h"
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min" if minutes else f"{whole.seconds} s"


def score_view(scores: Sequence[Score], title: str) -> Table:
    """The scores of an evaluation, with interval and chance; recalls of single classes are left out."""
    made = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for column in ("metric", "of", "score", "value", "interval", "chance"):
        made.add_column(column, justify="right" if column in ("value", "interval", "chance") else "left")
    for score in shown(scores):
        interval = ABSENT
        if score.low is not None and score.high is not None:
            interval = f"{number(score, score.low)} to {number(score, score.high)}"
        chance = ABSENT if score.chance is None else number(score, score.chance)
        made.add_row(
            *map(Text, (score.metric, score.subject, score.name, number(score, score.value), interval, chance))
        )
    return made


def shown(scores: Sequence[Score]) -> list[Score]:
    """Without the recalls of single classes."""
    return [score for score in scores if not score.name.startswith("recall/")]


def number(score: Score, value: float) -> str:
    """Shares in percent, others as they are."""
    name = score.name.rpartition("/")[2]
    if name in NO_SHARES:
        return f"{value:.1f}" if name == "median_rank" else f"{value:.3f}"
    return f"{100 * value:.1f} %"


def final_scores(folder: RunFolder) -> list[Score]:
    """Of evaluation.json; none where it is missing or damaged."""
    try:
        results = read_evaluation(folder)
        return parse_scores({name: float(value) for name, value in results.items()})
    except (OSError, ValueError, TypeError, AttributeError):
        return []


def show_view(run: Reading, facts: dict[str, Any]) -> RenderableType:
    """Everything of one run. facts: what :func:`launcher.runs.show.facts` found."""
    made = Table(box=None, show_header=False, pad_edge=False)
    for name, value in facts.items():
        if value not in (None, "", [], {}):
            made.add_row(Text(name.replace("_", " "), style="bold"), Text(_plain(value)))
    scores = final_scores(RunFolder(run.path))
    return Group(made, Text(), score_view(scores, "Final evaluation")) if scores else Group(made)


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return "\n".join(f"{key}: {_plain(entry)}" for key, entry in value.items())
    if isinstance(value, float):
        return f"{value:,.6g}"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
