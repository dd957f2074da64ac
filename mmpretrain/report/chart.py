"""A chart of curves as HTML: an inline SVG that stretches to the width there is, its labels as text beside it.

Lines are drawn in a box of 1000 x 1000 units which the browser stretches; their widths do not stretch, and labels are
no part of it, so that a chart reads as well on a phone as on a desk. Values under the pointer are the script's, from
``points``.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mmpretrain.report.axis import Axis, count, exponent, log_axis, percent, plain_axis, short, span_axis
from mmpretrain.report.metrics import Column
from mmpretrain.report.thinning import Thin, thin

BOX = 1000
COLORS = 10
MOST_HOVERED = 150  # points of a line that the pointer finds
FEW = 60  # points that are drawn as dots, too
LOG_FROM = 50.0  # of greatest to usual value: the chart is logarithmic at first
SMOOTHED_FROM = 40  # points


@dataclass(frozen=True)
class Curve:
    """One line. color: its number; the same thing has the same one in all charts. run: its place among the runs."""

    name: str
    column: Column
    color: int
    run: int
    smoothing: bool = True


@dataclass(frozen=True)
class Panel:
    """What one chart shows. shares: values are shares of 1. zero: the axis begins at 0. chance: a level to compare
    with.

    named: whether curves need a legend of their own (not where they are runs, which the page names once).
    """

    title: str
    curves: Sequence[Curve]
    note: str = ""
    shares: bool = False
    zero: bool = False
    log: bool = False
    chance: float | None = None
    named: bool = True


@dataclass(frozen=True)
class Drawn:
    """One curve as paths, in a plain or logarithmic chart."""

    style: str
    raw: str
    line: str
    dots: str


@dataclass(frozen=True)
class Scale:
    """A chart's vertical axis: labels with their places in percent from the top, and what is drawn on it."""

    kind: str
    labels: list[tuple[float, str]]
    curves: list[Drawn]
    chance: float | None


@dataclass(frozen=True)
class Chart:
    """Everything that the template needs."""

    title: str
    says: str
    note: str
    legend: list[tuple[str, str]]
    scales: list[Scale]
    log_first: bool
    x_labels: list[tuple[float, str]]
    broken: list[tuple[str, str]]
    points: dict[str, Any] = field(repr=False)


def chart(panel: Panel) -> Chart | None:
    """None where there is nothing to draw."""
    thinned = [(curve, thin(curve.column, smoothing=curve.smoothing and _noisy(curve))) for curve in panel.curves]
    known = [(curve, made) for curve, made in thinned if len(made.raw) or len(made.broken)]
    values = np.concatenate([made.raw[:, 1] for _, made in known] or [np.zeros(0)])
    values = values[np.isfinite(values)]
    if not len(values):
        return None
    ends = np.concatenate([np.concatenate([made.raw[:, 0], made.broken]) for _, made in known])
    x = span_axis(min(0.0, float(ends.min())), float(ends.max()) or 1.0, 4)
    scales = _scales(panel, known, values, x)
    usual = float(np.median(values))
    spread = len(scales) > 1 and usual > 0 and float(values.max()) / usual > LOG_FROM
    return Chart(
        panel.title,
        _says(panel, known),
        panel.note,
        [(_style(curve), curve.name) for curve, _ in known] if panel.named else [],
        scales,
        spread,
        _labels(x, short),
        [(_style(curve), _ticks(made.broken, x)) for curve, made in known if len(made.broken)],
        _points(panel, known, x),
    )


def _noisy(curve: Curve) -> bool:
    return len(curve.column.steps) >= SMOOTHED_FROM


def _style(curve: Curve) -> str:
    """Classes of a curve: its color, its run, and dashes where colors are used again."""
    dashed = f" d{curve.color // COLORS % 3}" if curve.color >= COLORS else ""
    return f"c{curve.color % COLORS} r{curve.run}{dashed}"


def _scales(panel: Panel, known: list[tuple[Curve, Thin]], values: np.ndarray, x: Axis) -> list[Scale]:
    edges = [value for value in (panel.chance, 0.0 if panel.zero else None) if value is not None]
    low, high = min(float(values.min()), *edges, np.inf), max(float(values.max()), *edges, -np.inf)
    axes = [plain_axis(low, high, 4)]
    positive = values[values > 0]
    if panel.log and len(positive):
        axes += [axis for axis in [log_axis(float(positive.min()), float(positive.max()))] if axis]
    return [_scale(axis, panel, known, x) for axis in axes]


def _scale(axis: Axis, panel: Panel, known: list[tuple[Curve, Thin]], x: Axis) -> Scale:
    chance = None
    if panel.chance is not None:
        place = float(axis.place(np.array([panel.chance]))[0])
        chance = round(100 * (1 - place), 2) if 0 <= place <= 1 else None
    labels = [(100 - place, text) for place, text in _labels(axis, percent if panel.shares else short)]
    drawn = [_drawn(curve, made, x, axis) for curve, made in known]
    return Scale("log" if axis.log else "plain", labels, drawn, chance)


def _labels(axis: Axis, words: Callable[[float], str]) -> list[tuple[float, str]]:
    places = axis.place(np.array(axis.ticks, dtype=np.float64)).tolist()
    texts = [words(tick) for tick in axis.ticks]
    if any("e-" in text for text in texts):  # all alike: 1e-3 and 5e-4, not 0.001 and 5e-4
        texts = [exponent(tick) for tick in axis.ticks]
    return [(round(100 * place, 2), text) for place, text in zip(places, texts, strict=True)]


def _drawn(curve: Curve, made: Thin, x: Axis, y: Axis) -> Drawn:
    raw, line = _placed(made.raw, x, y), _placed(made.smoothed, x, y)
    smoothed = curve.smoothing and _noisy(curve)
    few = int(np.isfinite(raw).all(axis=1).sum()) <= FEW
    return Drawn(_style(curve), _path(raw) if smoothed else "", _path(line), _dots(raw) if few else "")


def _placed(points: np.ndarray, x: Axis, y: Axis) -> np.ndarray:
    """Points [n, 2] in the units of the box; nan where there are none."""
    return np.column_stack([BOX * x.place(points[:, 0]), BOX * (1 - y.place(points[:, 1]))])


def _path(points: np.ndarray) -> str:
    parts, pen = [], "M"
    for left, top in points.tolist():
        if top != top or abs(top) > 1e6:
            pen = "M"
        else:
            parts.append(f"{pen}{left:.0f} {top:.0f}")
            pen = "L"
    return "".join(parts)


def _dots(points: np.ndarray) -> str:
    return "".join(f"M{left:.0f} {top:.0f}h0" for left, top in points.tolist() if top == top)


def _ticks(broken: np.ndarray, x: Axis) -> str:
    return "".join(f"M{left:.0f} {BOX}v-60" for left in (BOX * x.place(broken)).tolist())


def _points(panel: Panel, known: list[tuple[Curve, Thin]], x: Axis) -> dict[str, Any]:
    """For the pointer: the x range, and per curve where it has values and which."""
    curves = []
    for curve, made in known:
        rows = made.smoothed[np.isfinite(made.smoothed).all(axis=1)]
        rows = rows[np.unique(np.linspace(0, len(rows) - 1, MOST_HOVERED).round().astype(int))] if len(rows) else rows
        batch = curve.column.samples[-1] / curve.column.steps[-1] if curve.column.steps[-1] else 1.0
        texts = [percent(v) if panel.shares else short(v) for v in rows[:, 1].tolist()]
        curves.append(
            {
                "n": curve.name,
                "c": _style(curve),
                "r": curve.run,
                "b": round(float(batch), 6),
                "x": [round(v) for v in rows[:, 0].tolist()],
                "y": texts,
            }
        )
    return {"low": x.low, "high": x.high, "curves": curves}


def _says(panel: Panel, known: list[tuple[Curve, Thin]]) -> str:
    """The chart in words, for those who cannot see it."""
    words = percent if panel.shares else short
    said = []
    for curve, made in known:
        rows = made.smoothed[np.isfinite(made.smoothed).all(axis=1)]
        if len(rows):
            said.append(f"{curve.name}: from {words(rows[0, 1])} to {words(rows[-1, 1])}")
        if len(made.broken):
            said.append(f"{curve.name}: values that are no number")
    end = max((float(curve.column.samples[-1]) for curve, _ in known), default=0.0)
    return f"{panel.title} over {count(end)} samples. " + "; ".join(said[:20])


def points_text(made: Chart) -> str:
    """The chart's points as JSON for an attribute."""
    return json.dumps(made.points, ensure_ascii=True, separators=(",", ":"))
