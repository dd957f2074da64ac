"""The panels of a run's picture: curves, bars beside chance, retrieval grids. Each draws onto axes it is given."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import SubFigure
from matplotlib.ticker import EngFormatter, MaxNLocator, PercentFormatter

from mmpretrain.evaluation.grid import Grid, GridPair, Shown, Verdict
from mmpretrain.evaluation.records import Score

INK, FAINT = "#222222", "#8a8a8a"
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#7B5EA7", "#8C6D31")
MARKS = {
    Verdict.pair: ("✓ pair", "#006D4E"),
    Verdict.same_class: ("✓", "#2CA02C"),
    Verdict.wrong: ("✗", "#C62828"),
}
MOST_CURVES = 6


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
    _style(axes, "Training loss (running mean)", "loss")
    _legend_below(axes)


def draw_learning_rate(axes: Axes, steps: Sequence[Mapping[str, Any]]) -> None:
    """The learning rate against the samples seen."""
    known = [step for step in steps if step.get("lr") is not None]
    axes.plot([step["samples"] for step in known], [step["lr"] for step in known], color=COLORS[0], linewidth=1.8)
    axes.yaxis.set_major_formatter("{x:g}")
    axes.set_ylim(bottom=0)
    _style(axes, "Learning rate", "learning rate")


def draw_evaluations(axes: Axes, curves: Mapping[str, Mapping[int, float]], batch: float) -> None:
    """Evaluations made while training (label -> step -> share) against the samples seen; ``batch``: samples a step."""
    for color, (label, curve) in zip(COLORS, list(curves.items())[:MOST_CURVES], strict=False):
        samples = [step * batch for step in curve]
        axes.plot(samples, list(curve.values()), color=color, marker=".", markersize=5, linewidth=1.3, label=label)
    axes.yaxis.set_major_formatter(PercentFormatter(xmax=1))
    _style(axes, "Evaluation while training", "score")
    _legend_below(axes, columns=2)


def draw_bars(axes: Axes, title: str, groups: Mapping[str, Sequence[Score]]) -> None:
    """One group of bars per label, one bar per score name, with a tick where chance lies.

    Where every label has one score its name is left to the title and the labels.
    """
    names = list(dict.fromkeys(score.name for scores in groups.values() for score in scores))
    if all(len(scores) == 1 for scores in groups.values()):
        names = names[:1]
    for row, scores in enumerate(groups.values()):
        for score in scores:
            _bar(axes, row, names.index(score.name) if len(names) > 1 else 0, len(names), score)
    _bar_legend(axes, names)
    axes.set_yticks(range(len(groups)), labels=list(groups), fontsize=9)
    axes.set_ylim(len(groups) - 0.45, -0.55)
    _share_axis(axes, max(max(s.value, s.chance or 0) for scores in groups.values() for s in scores))
    axes.set_title(title, fontsize=10.5, loc="left", color=INK)
    axes.grid(axis="x", color="#e6e6e6", linewidth=0.7)
    _open_frame(axes)


def _bar(axes: Axes, row: int, place: int, places: int, score: Score) -> None:
    """The bar of ``score``, as number ``place`` of ``places`` in the group at height ``row``."""
    thickness = (0.55 if places == 1 else 0.8) / places
    y = row + (place - (places - 1) / 2) * thickness
    axes.barh(y, score.value, height=0.9 * thickness, color=COLORS[place % len(COLORS)], alpha=0.85)
    edge = max(score.value, score.chance or 0)
    axes.annotate(
        f"{100 * score.value:.1f}",
        (edge, y),
        (4, 0),
        textcoords="offset points",
        va="center",
        fontsize=7.5,
        color=INK,
    )
    if score.chance is not None:
        span = (y - 0.45 * thickness, y + 0.45 * thickness)
        axes.plot([score.chance] * 2, span, color=INK, linewidth=2, solid_capstyle="butt")


def _share_axis(axes: Axes, largest: float) -> None:
    """A percent axis from 0 to just above ``largest``, with room for the last number and no tick above 100 %."""
    limit = max(largest, 0.01)
    axes.set_xlim(0, 1.14 * limit)
    ticks = MaxNLocator(6, steps=[1, 2, 5, 10]).tick_values(0, limit)
    axes.set_xticks([tick for tick in ticks if tick <= min(1, 1.14 * limit)])
    axes.xaxis.set_major_formatter(PercentFormatter(xmax=1))


def draw_grid_pair(figure: SubFigure, grid: Grid, pair: GridPair) -> None:
    """Per line a query, the item that belongs to it, and what was retrieved, nearest first, marked right or wrong."""
    title = f"Retrieval {pair.query} → {pair.item}, nearest first"
    figure.suptitle(f"{title}   (✓ pair: same sample, ✓ same class, ✗ neither)", fontsize=9.5, color=INK)
    rows, columns = pair.items.shape
    axes = figure.subplots(rows, columns + 2, squeeze=False)
    for row, query in enumerate(pair.queries.tolist()):
        _show(axes[row, 0], grid.shown[pair.query, query], "query", INK)
        _show(axes[row, 1], grid.shown[pair.item, query], "its pair", INK)
        for column, item in enumerate(pair.items[row].tolist()):
            mark, color = MARKS[Verdict(int(pair.verdicts[row, column]))]
            _show(axes[row, column + 2], grid.shown[pair.item, item], mark, color)


def smooth(values: np.ndarray) -> np.ndarray:
    """Running mean of ``values`` [n] over the last n / 40 of them (fewer at the start); NaNs are skipped."""
    window = max(1, len(values) // 40)
    known = np.isfinite(values)
    sums = np.cumsum(np.concatenate([[0.0], np.where(known, values, 0.0)]))
    counts = np.cumsum(np.concatenate([[0], known]))
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(ends - window, 0)
    count = counts[ends] - counts[starts]
    return np.where(count > 0, (sums[ends] - sums[starts]) / np.maximum(count, 1), np.nan)


def _show(axes: Axes, shown: Shown, title: str, color: str) -> None:
    if isinstance(shown, str):
        text = "\n".join(textwrap.wrap(shown, 10)[:5])
        axes.text(0.5, 0.5, text, ha="center", va="center", fontsize=7.5, color=INK, transform=axes.transAxes)
    else:
        axes.imshow(shown, interpolation="nearest")
    axes.set_title(title, fontsize=8, color=color, pad=2)
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set(color=color, linewidth=1.8 if color != INK else 0.8)


def _bar_legend(axes: Axes, names: Sequence[str]) -> None:
    if len(names) > 1:
        for place, name in enumerate(names):
            axes.barh(0, 0, color=COLORS[place % len(COLORS)], alpha=0.85, label=name)
    axes.plot([], [], color=INK, linewidth=2, label="chance")
    _legend_below(axes, columns=4, distance=2.6)


def _style(axes: Axes, title: str, label: str) -> None:
    axes.set_title(title, fontsize=10.5, loc="left", color=INK)
    axes.set_xlabel("samples seen", fontsize=9)
    axes.set_ylabel(label, fontsize=9)
    axes.xaxis.set_major_locator(MaxNLocator(6))
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.grid(color="#e6e6e6", linewidth=0.7)
    _open_frame(axes)


def _open_frame(axes: Axes) -> None:
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=8.5, color=FAINT)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(FAINT)


def _legend_below(axes: Axes, columns: int = 4, distance: float = 4.6) -> None:
    """A legend under the axes, ``distance`` font sizes below them (clear of tick labels and axis label)."""
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        order = sorted(range(len(labels)), key=lambda i: labels[i] in ("chance", "loss"))
        axes.legend(
            [handles[i] for i in order],
            [labels[i] for i in order],
            loc="upper center",
            bbox_to_anchor=(0.5, 0),
            borderaxespad=distance,
            ncols=columns,
            fontsize=8,
            frameon=False,
            handlelength=1.4,
            columnspacing=1.2,
        )
