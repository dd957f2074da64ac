"""The picture of a comparison: a panel per metric and score, a bar of each model with its interval, beside chance."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from mmpretrain.comparison.rows import Row, result_rows
from mmpretrain.figures import COLORS, INK, draw_bars
from mmpretrain.records import Score

WIDTH = 9.0  # inches
BAR, HEAD, FOOT = 0.2, 0.85, 0.9  # inches: of a bar, above the first panel, below the last
GAP = 0.75  # between panels, for titles and axes
MOST_SUBJECTS = 12  # of a panel; more would not be read
MOST_MODELS = len(COLORS)


def draw_comparison(result: dict[str, Any], path: Path) -> Path | None:
    """Write the picture of ``evaluate.json``'s main scores; None, and no file, where no share was measured."""
    panels = _panels(result)
    if not panels:
        path.unlink(missing_ok=True)  # of an earlier comparison
        return None
    heights = [BAR * sum(len(scores) + 0.8 for scores in groups.values()) for groups in panels.values()]
    height = HEAD + FOOT + sum(heights) + GAP * (len(panels) - 1)
    figure = Figure(figsize=(WIDTH, height))
    FigureCanvasAgg(figure)
    top = height - HEAD
    for (title, groups), size in zip(panels.items(), heights, strict=True):
        axes = figure.add_axes((0.24, (top - size) / height, 0.7, size / height))
        draw_bars(axes, title, groups)
        top -= size + GAP
    _title(figure, result, height)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
    return path


def _panels(result: dict[str, Any]) -> dict[str, Mapping[str, list[Score]]]:
    """Title -> subject -> the models' scores, in the order of the result."""
    found: dict[str, dict[str, list[Score]]] = {}
    models = [model["name"] for model in result["models"]][:MOST_MODELS]
    for row in result_rows(result):
        if row.is_main and row.is_share:
            groups = found.setdefault(f"{row.heading}: {row.name}", {})
            if len(groups) < MOST_SUBJECTS:
                groups[row.subject or row.name] = _scores(row, models)
    return {title: {s: g for s, g in groups.items() if g} for title, groups in found.items() if any(groups.values())}


def _scores(row: Row, models: list[str]) -> list[Score]:
    cells = [(name, row.cells[name]) for name in models if name in row.cells]
    return [Score(row.metric, row.subject, name, c.value, row.chance, c.low, c.high) for name, c in cells]


def _title(figure: Figure, result: dict[str, Any], height: float) -> None:
    data = result["data"]["name"] or result["data"]["path"]
    counts = {model["samples"].get(result["split"]) for model in result["models"]} - {None}
    text = f"{' or '.join(map(str, sorted(counts)))} samples of {data}, split {result['split']}"
    figure.text(0.02, 1 - 0.3 / height, text, fontsize=12, color=INK, va="center")
