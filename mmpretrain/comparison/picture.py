"""The picture of a comparison: a panel per metric and score, a bar of each model with its interval, beside chance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from mmpretrain.comparison.rows import Row, result_rows
from mmpretrain.figures import COLORS, FAINT, INK, draw_bars
from mmpretrain.records import Score
from mmpretrain.words import shortened

COLUMN, LABELS = 7.0, 2.1  # inches: of a column of panels, of which so much for names
BAR, GROUP_GAP = 0.19, 0.7  # inches of a bar; between groups, in bars
HEAD, FOOT, GAP = 1.1, 0.45, 0.75  # inches: above the first panel, below the last, between panels
MARKS, MARK = 3, 0.22  # of the legend: marks in a row of a column's width; inches of a row
MOST_SUBJECTS = 12  # of a panel; more would not be read
MOST_IN_COLUMN = 3  # panels
MOST_MODELS = len(COLORS)
LONGEST = 40  # name of a model, characters

Panels = dict[str, dict[str, list[Score]]]  # title -> subject -> the models' scores


def draw_comparison(result: dict[str, Any], path: Path) -> Path | None:
    """Write the picture of ``evaluate.json``'s main scores; None, and no file, where no share was measured."""
    models = [model["name"] for model in result["models"]][:MOST_MODELS]
    panels = _panels(result, models)
    if not panels:
        path.unlink(missing_ok=True)  # of an earlier comparison
        return None
    columns = _columns(panels, len(models))
    width = COLUMN * len(columns)
    head = HEAD + MARK * ((len(models) + 1) // (MARKS * len(columns)))
    height = head + FOOT + max(sum(_height(panels[t], len(models)) + GAP for t in titles) - GAP for titles in columns)
    figure = Figure(figsize=(width, height))
    FigureCanvasAgg(figure)
    for number, titles in enumerate(columns):
        top = height - head
        for title in titles:
            size = _height(panels[title], len(models))
            left = (number * COLUMN + LABELS) / width
            axes = figure.add_axes((left, (top - size) / height, (COLUMN - LABELS - 0.35) / width, size / height))
            draw_bars(axes, title, panels[title], models, legend=False)
            top -= size + GAP
    _head(figure, result, models, MARKS * len(columns), has_intervals=_has_intervals(panels))
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
    return path


def _panels(result: Mapping[str, Any], models: Sequence[str]) -> Panels:
    found: Panels = {}
    for row in (row for row in result_rows(result) if row.is_drawn):
        score, label = _words(row)
        groups = found.setdefault(f"{row.heading}: {score}", {})
        if len(groups) < MOST_SUBJECTS and (scores := _scores(row, models)):
            groups[label] = scores
    return {title: groups for title, groups in found.items() if groups}


def _words(row: Row) -> tuple[str, str]:
    """The score in the title of its panel, and what it is of beside its bars."""
    subject = row.subject.replace("->", " → ")
    score, _, without = row.name.partition("/without/")
    if without:
        return score, f"{subject}\nwithout {without}"
    factor, _, score = row.name.rpartition("/")
    return score, ": ".join(filter(None, (subject, factor))) or score


def _scores(row: Row, models: Sequence[str]) -> list[Score]:
    cells = [(name, row.cells[name]) for name in models if name in row.cells]
    return [Score(row.metric, row.subject, name, c.value, row.chance, c.low, c.high) for name, c in cells]


def _height(groups: Mapping[str, list[Score]], models: int) -> float:
    return BAR * len(groups) * (models + GROUP_GAP)


def _columns(panels: Panels, models: int) -> list[list[str]]:
    """Titles of the panels of each column: one, or two of about equal height."""
    titles = list(panels)
    if len(titles) <= MOST_IN_COLUMN:
        return [titles]
    sizes = [_height(panels[title], models) + GAP for title in titles]
    cut = min(range(1, len(titles)), key=lambda at: abs(sum(sizes[:at]) - sum(sizes[at:])))
    return [titles[:cut], titles[cut:]]


def _has_intervals(panels: Panels) -> bool:
    return any(score.low is not None for groups in panels.values() for scores in groups.values() for score in scores)


def _head(
    figure: Figure, result: Mapping[str, Any], models: Sequence[str], marks_in_row: int, *, has_intervals: bool
) -> None:
    """What was measured on, and one legend for all panels."""
    height = figure.get_size_inches()[1]
    counts = {model["samples"].get(result["split"]) for model in result["models"]} - {None}
    data = result["data"]["name"] or result["data"]["path"]
    text = f"{' or '.join(map(str, sorted(counts)))} samples of {data}, split {result['split']}"
    figure.text(0.15 / figure.get_size_inches()[0], 1 - 0.27 / height, text, fontsize=12, color=INK, va="center")
    marks: list[Any] = [
        Patch(color=COLORS[place], alpha=0.85, label=shortened(name, LONGEST)) for place, name in enumerate(models)
    ]
    marks.append(Line2D([], [], color=INK, linewidth=2, label="chance"))
    if has_intervals:
        marks.append(Line2D([], [], color=FAINT, linewidth=0.9, label="95 % interval"))
    place = (0.1 / figure.get_size_inches()[0], 1 - 0.42 / height)
    figure.legend(handles=marks, loc="upper left", bbox_to_anchor=place, ncols=marks_in_row, fontsize=9, frameon=False)
