"""The panels of a run's picture: curves and retrieval grids. Each draws onto axes it is given."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import SubFigure
from matplotlib.patches import Rectangle
from matplotlib.ticker import PercentFormatter

from mmpretrain.figures import COLORS, INK, legend_below, style_axes
from mmpretrain.summary.grid_file import Grid, GridPair, RetrievalVerdict, Shown
from mmpretrain.summary.smoothing import smooth

MARKS = {
    RetrievalVerdict.pair: ("✓ pair", "#006D4E"),
    RetrievalVerdict.same_class: ("✓", "#2CA02C"),
    RetrievalVerdict.wrong: ("✗", "#C62828"),
}
MOST_CURVES = 6
CELL = 0.8  # of a cell of a grid, the part that a picture or text takes


def draw_loss(axes: Axes, steps: Sequence[Mapping[str, Any]]) -> None:
    """The loss and its terms against the samples seen, smoothed, over the unsmoothed loss."""
    samples = np.array([step["samples"] for step in steps], dtype=float)
    total = np.array([step["loss"] for step in steps], dtype=float)
    axes.plot(samples, total, color=INK, alpha=0.18, linewidth=0.8)
    terms = sorted({key for step in steps for key in step if key.startswith("loss/")})[:MOST_CURVES]
    for color, term in zip(COLORS, terms, strict=False):
        values = np.array([step.get(term, np.nan) for step in steps], dtype=float)
        axes.plot(samples, smooth(values), color=color, linewidth=1.2, label=term.removeprefix("loss/"))
    axes.plot(samples, smooth(total), color=INK, linewidth=2, label="loss")
    style_axes(axes, "Training loss (running mean)", "loss")
    legend_below(axes)


def draw_group(axes: Axes, steps: Sequence[Mapping[str, Any]], prefix: str, title: str, unit: str) -> None:
    """All numbers whose names begin with ``prefix`` against the samples seen, smoothed; those of gradients apart."""
    samples = np.array([step["samples"] for step in steps], dtype=float)
    names = sorted({key for step in steps for key in step if key.startswith(prefix) and not key.endswith("grad_norm")})
    for color, name in zip(COLORS, names, strict=False):
        values = np.array([step.get(name, np.nan) for step in steps], dtype=float)
        label = name.removeprefix(prefix).replace("_", " ")
        axes.plot(samples, smooth(values), color=color, linewidth=1.4, label=label)
    style_axes(axes, title, unit)
    legend_below(axes)


def draw_learning_rate(axes: Axes, steps: Sequence[Mapping[str, Any]]) -> None:
    """The learning rate against the samples seen."""
    known = [step for step in steps if step.get("lr") is not None]
    axes.plot([step["samples"] for step in known], [step["lr"] for step in known], color=COLORS[0], linewidth=1.8)
    axes.yaxis.set_major_formatter("{x:g}")
    axes.set_ylim(bottom=0)
    style_axes(axes, "Learning rate", "learning rate")


def draw_evaluations(axes: Axes, curves: Mapping[str, Mapping[int, float]], batch: float) -> None:
    """Evaluations made while training (label -> step -> share) against the samples seen; ``batch``: samples a step."""
    for color, (label, curve) in zip(COLORS, list(curves.items())[:MOST_CURVES], strict=False):
        samples = [step * batch for step in curve]
        values = np.array(list(curve.values()), dtype=float)  # null: not a number
        axes.plot(samples, values, color=color, marker=".", markersize=5, linewidth=1.3, label=label)
    axes.yaxis.set_major_formatter(PercentFormatter(xmax=1))
    style_axes(axes, "Evaluation while training", "score")
    legend_below(axes, columns=2)


def draw_grid_pair(figure: SubFigure, grid: Grid, pair: GridPair) -> None:
    """Per line a query, the item that belongs to it, and what was retrieved, nearest first, marked right or wrong.

    All of it in one system of axes, in which a cell is 1 by 1: one of its own for each takes several times as long.
    """
    title = f"Retrieval {pair.query} → {pair.item}, nearest first"
    figure.suptitle(f"{title}   (✓ pair: same sample, ✓ same class, ✗ neither)", fontsize=9.5, color=INK)
    rows, columns = pair.items.shape
    axes = figure.subplots()
    axes.set(xlim=(0, columns + 2), ylim=(rows + 0.03, 0), aspect="equal")
    axes.set_axis_off()
    for row, query in enumerate(pair.queries.tolist()):
        _show(axes, (0, row), grid.shown[pair.query, query], "query", INK)
        _show(axes, (1, row), grid.shown[pair.item, query], "its pair", INK)
        for column, item in enumerate(pair.items[row].tolist()):
            mark, color = MARKS[RetrievalVerdict(int(pair.verdicts[row, column]))]
            _show(axes, (column + 2, row), grid.shown[pair.item, item], mark, color)


def _show(axes: Axes, cell: tuple[int, int], shown: Shown, title: str, color: str) -> None:
    """A picture or a text in a frame, below its title; cell: its column and row."""
    rows, columns = (1, 1) if isinstance(shown, str) else shown.shape[:2]
    height, width = CELL * rows / max(rows, columns), CELL * columns / max(rows, columns)
    middle, bottom = cell[0] + 0.5, cell[1] + 0.99
    left, top = middle - width / 2, bottom - (CELL + height) / 2
    if isinstance(shown, str):
        text = "\n".join(textwrap.wrap(shown, 10)[:5])
        axes.text(middle, top + height / 2, text, ha="center", va="center", fontsize=7.5, color=INK)
    else:
        axes.imshow(shown, interpolation="nearest", extent=(left, left + width, top + height, top))
    line = 1.8 if color != INK else 0.8
    axes.add_patch(Rectangle((left, top), width, height, fill=False, edgecolor=color, linewidth=line))
    axes.text(middle, top - 0.02, title, ha="center", va="bottom", fontsize=8, color=color)
