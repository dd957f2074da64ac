"""Retrieval grids and embedding maps as the template wants them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup
from PIL import Image

from mmpretrain.preview.drawing import picture
from mmpretrain.report.record import Record
from mmpretrain.summary.grid_file import Grid, GridPair, RetrievalVerdict

MARKS = {
    RetrievalVerdict.pair: ("pair", "✓ its pair"),
    RetrievalVerdict.same_class: ("same", "✓ same class"),
    RetrievalVerdict.wrong: ("wrong", "✗"),
}
LARGEST, QUALITY = 112, 80  # of pictures; a page has up to 70 per run
MOST_CLASSES = 12  # that colors tell apart
SHAPES = ("circle", "square", "triangle", "diamond", "cross")


@dataclass(frozen=True)
class Cell:
    """A sample of a grid. style: what it is to its query."""

    style: str
    mark: str
    picture: Markup | None
    text: str


@dataclass(frozen=True)
class GridView:
    """The retrievals of one direction: per row the query, its pair, and what was found, nearest first."""

    title: str
    says: str
    rows: list[list[Cell]]


@dataclass(frozen=True)
class Point:
    """A sample of one modality on a map; left and top in percent, of each view."""

    sample: int
    style: str
    shape: str
    views: list[tuple[float, float]]
    says: str


@dataclass(frozen=True)
class MapView:
    """A map. legend, shapes: style or shape, and what has it. views: their names, with the shares of variance."""

    points: list[Point]
    legend: list[tuple[str, str]]
    shapes: list[tuple[str, str]]
    views: list[str]
    note: str


def grids(record: Record) -> list[GridView]:
    """One per pair of modalities."""
    return [_grid(record.grid, pair) for pair in record.grid.pairs] if record.grid else []


def _grid(grid: Grid, pair: GridPair) -> GridView:
    rows = []
    for row, query in enumerate(pair.queries.tolist()):
        cells = [_cell(grid, pair.query, query, "query", "query"), _cell(grid, pair.item, query, "query", "its pair")]
        for item, verdict in zip(pair.items[row].tolist(), pair.verdicts[row].tolist(), strict=True):
            cells.append(_cell(grid, pair.item, item, *MARKS[RetrievalVerdict(int(verdict))]))
        rows.append(cells)
    right = int((pair.verdicts == RetrievalVerdict.pair).any(axis=1).sum())
    says = f"of {len(rows)} queries {right} have their own pair among the {pair.items.shape[1]} nearest"
    return GridView(f"{pair.query} → {pair.item}", says, rows)


def _cell(grid: Grid, modality: str, ordinal: int, style: str, mark: str) -> Cell:
    shown = grid.shown.get((modality, ordinal))
    if shown is None or isinstance(shown, str):
        return Cell(style, mark, None, shown or "")
    says = f"{modality}, sample {ordinal}: {mark}"
    return Cell(style, mark, picture(Image.fromarray(shown), says, LARGEST, QUALITY), "")


def embedding_map(record: Record) -> MapView | None:
    """None where the run has no map, or a damaged one."""
    try:
        return _map(record.map) if record.map else None
    except (KeyError, TypeError, ValueError, IndexError, AttributeError):
        record.notes.append("embeddings_map.json does not hold what it should and is left out")
        return None


def _map(content: Mapping[str, Any]) -> MapView:
    names = [str(name) for name in content["modalities"]]
    labels = content.get("labels")
    kinds = sorted({str(label) for label in labels}) if labels else []
    by_class = 1 < len(kinds) <= MOST_CLASSES
    views = [content["views"][name] for name in ("whole", "centered")]
    points = []
    for shape, name in enumerate(names):
        for sample, places in enumerate(zip(*(view["points"][name] for view in views), strict=True)):
            if None in places:
                continue
            color = kinds.index(str(labels[sample])) if labels and by_class else shape
            said = _said(content, labels, sample, name)
            points.append(Point(sample, f"c{color}", SHAPES[shape % len(SHAPES)], [_place(p) for p in places], said))
    legend = [(f"c{number}", kind) for number, kind in enumerate(kinds)] if by_class else []
    legend = legend or [(f"c{number}", name) for number, name in enumerate(names)]
    shapes = [(SHAPES[number % len(SHAPES)], name) for number, name in enumerate(names)] if by_class else []
    shares = [" and ".join(f"{100 * float(share):.0f} %" for share in view["explained"]) for view in views]
    note = f"{len(content['ordinals'])} of {content['samples']} samples of {content['split']}"
    return MapView(points, legend, shapes, shares, note)


def _said(content: Mapping[str, Any], labels: Sequence[object] | None, sample: int, modality: str) -> str:
    parts = [modality, str(labels[sample]) if labels else "", str(content["texts"][sample] or "")]
    return " · ".join(part for part in parts if part) + f" · sample {content['ordinals'][sample]}"


def _place(point: Sequence[float]) -> tuple[float, float]:
    x, y = float(point[0]), float(point[1])
    if not (math.isfinite(x) and math.isfinite(y)) or max(abs(x), abs(y)) > 1.01:
        raise ValueError("a point of the map lies outside of it")
    return round(50 + 47 * x, 1), round(50 - 47 * y, 1)
