"""Evaluations as tables, several runs side by side, and what they mean in a few numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from mmpretrain.comparison.rows import Cell, Row, result_rows
from mmpretrain.config.evaluation_sections import LOWER_IS_BETTER
from mmpretrain.report.axis import short
from mmpretrain.report.chart import COLORS
from mmpretrain.report.record import Record

GENERAL = "general/"  # scores of a kept-out data set
BEFORE = " before"
MOST_HEADLINES = 6


@dataclass(frozen=True)
class Bar:
    """A score on a line from 0 to 1, in percent. style: the color of its run."""

    style: str
    at: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Shown:
    """A cell of a table. beside: its interval in words."""

    text: str
    beside: str = ""
    best: bool = False


@dataclass(frozen=True)
class Line:
    """A row of a table. verdict: what can be said of the runs."""

    subject: str
    name: str
    cells: list[Shown | None]
    chance: str
    verdict: str
    bars: list[Bar]
    chance_at: float | None


@dataclass(frozen=True)
class Table:
    """One metric. columns: runs, with what they were before training where that was measured, and their styles."""

    title: str
    columns: list[tuple[str, str]]
    lines: list[Line]
    rest: list[Line]
    intervals: bool


@dataclass(frozen=True)
class Headline:
    """One number that matters. verdict: against chance."""

    title: str
    subject: str
    text: str
    beside: str
    verdict: str
    good: bool


def tables(records: Sequence[Record]) -> list[Table]:
    """One per metric, of the user's data first; empty without evaluations."""
    return [*_tables(records, ""), *_tables(records, GENERAL)]


def headlines(record: Record) -> list[Headline]:
    """At most MOST_HEADLINES scores of a run, one or two a metric."""
    rows = [row for row in _rows([record], "") if row.is_drawn and record.name in row.cells]
    found: list[Row] = []
    for _, group in groupby(rows, key=lambda row: row.metric):
        ranked = sorted(group, key=lambda row: _weight(row, record))
        found += ranked[: 2 if ranked[0].metric in ("retrieval", "zero_shot") else 1]
    return [_headline(row, row.cells[record.name]) for row in found[:MOST_HEADLINES]]


def number(row: Row, value: float) -> str:
    """A score in percent, or as it is where it is no share."""
    return f"{100 * value:.1f}" if row.is_share else short(value)


def _tables(records: Sequence[Record], prefix: str) -> list[Table]:
    rows = _rows(records, prefix)
    columns = [column for run, record in enumerate(records) for column in _columns(record, run, prefix)]
    made = []
    for heading, group in groupby(rows, key=lambda row: row.heading):
        lines = [(row, _line(row, columns)) for row in group]
        main = [line for row, line in lines if row.is_main]
        rest = [line for row, line in lines if not row.is_main]
        title = f"{heading}, on the kept-out data" if prefix else heading
        intervals = any(cell.beside for line in [*main, *rest] for cell in line.cells if cell)
        made.append(Table(title, columns, main or rest, rest if main else [], intervals))
    return made


def _columns(record: Record, run: int, prefix: str) -> list[tuple[str, str]]:
    before = [(record.name + BEFORE, f"c{run % COLORS} before")] if _chosen(record.before, prefix) else []
    return [*before, (record.name, f"c{run % COLORS}")] if before or _chosen(record.scores, prefix) else []


def _rows(records: Sequence[Record], prefix: str) -> list[Row]:
    models = []
    for record in records:
        if before := _chosen(record.before, prefix):
            models.append({"name": record.name + BEFORE, "results": before})
        models.append({"name": record.name, "results": _chosen(record.scores, prefix)})
    return result_rows({"models": models})


def _chosen(scores: Mapping[str, float], prefix: str) -> dict[str, float]:
    """The scores of the user's data, or those of the kept-out one without the prefix."""
    if prefix:
        found = {key.removeprefix(prefix): value for key, value in scores.items() if key.startswith(prefix)}
    else:
        found = {key: value for key, value in scores.items() if not key.startswith(GENERAL)}
    return {key: value for key, value in found.items() if "/" in key}


def _line(row: Row, columns: Sequence[tuple[str, str]]) -> Line:
    best = row.best if len(row.cells) > 1 else None
    cells = [_shown(row, row.cells.get(name), best == name) for name, _ in columns]
    bars, chance_at = [], None
    if row.is_share:
        bars = [_bar(style, row.cells[name]) for name, style in columns if name in row.cells]
        chance_at = None if row.chance is None else _percent(row.chance)
    chance = "" if row.chance is None else number(row, row.chance)
    subject = row.subject.replace("->", " → ") or "model"
    return Line(subject, row.name.replace("_", " "), cells, chance, _verdict(row, best), bars, chance_at)


def _shown(row: Row, cell: Cell | None, best: bool) -> Shown | None:
    if cell is None:
        return None
    return Shown(number(row, cell.value), _interval(row, cell), best)


def _interval(row: Row, cell: Cell) -> str:
    if cell.low is None or cell.high is None:
        return ""
    return f"{number(row, cell.low)} to {number(row, cell.high)}"


def _bar(style: str, cell: Cell) -> Bar:
    known = cell.low is not None and cell.high is not None
    low, high = (_percent(cell.low or 0.0), _percent(cell.high or 0.0)) if known else (None, None)
    return Bar(style, _percent(cell.value), low, high)


def _percent(value: float) -> float:
    return round(100 * min(max(value, 0.0), 1.0), 2)


def _verdict(row: Row, best: str | None) -> str:
    """Of several columns: which is best, or that chance may decide."""
    if len(row.cells) < 2:
        return ""
    if best is not None:
        return f"best: {best}"
    ahead = _ahead(row)
    if len(ahead) in (0, len(row.cells)):
        return "not distinguishable" if ahead else ""
    return f"ahead, not distinguishable: {', '.join(ahead)}"


def _ahead(row: Row) -> list[str]:
    """The columns whose intervals reach into that of the highest score; none where an interval is not known."""
    sign = -1 if row.name.rpartition("/")[2] in LOWER_IS_BETTER else 1
    edges = {
        name: sorted((sign * cell.low, sign * cell.high))
        for name, cell in row.cells.items()
        if cell.low is not None and cell.high is not None
    }
    if len(edges) < len(row.cells):
        return []
    first = max(edges, key=lambda name: sign * row.cells[name].value)
    return [name for name, (_, high) in edges.items() if high >= edges[first][0]]


def _weight(row: Row, record: Record) -> tuple[float, ...]:
    """Order of headlines: scores of all modalities together first, and of retrieval those of texts and pictures."""
    kinds = {name: (entry or {}).get("kind") for name, entry in (record.setting("data.modalities") or {}).items()}
    ends = row.subject.split("->")
    texts = sum(kinds.get(end) == "text" for end in ends)
    deep = {"recall@10": 0, "recall@1": 1}.get(row.name, 2)
    return (deep, 0 if len(ends) == 2 and texts == 1 else 1, -row.subject.count("+"), 0 if row.subject == "" else 1)


def _headline(row: Row, cell: Cell) -> Headline:
    text = f"{number(row, cell.value)} %" if row.is_share else number(row, cell.value)
    said = [f"interval {_interval(row, cell)}"] if _interval(row, cell) else []
    said += [f"chance {number(row, row.chance)}"] if row.chance is not None else []
    verdict, good = _against_chance(row, cell)
    subject = row.subject.replace("->", " → ")
    name = "" if row.heading.lower().endswith(row.name) else row.name.replace("_", " ")
    return Headline(row.heading, " · ".join(filter(None, (subject, name))), text, ", ".join(said), verdict, good)


def _against_chance(row: Row, cell: Cell) -> tuple[str, bool]:
    if row.chance is None or cell.low is None or cell.high is None:
        return "", True
    worse = row.name.rpartition("/")[2] in LOWER_IS_BETTER
    if (cell.high < row.chance) if worse else (cell.low > row.chance):
        return "better than chance", True
    if (cell.low > row.chance) if worse else (cell.high < row.chance):
        return "worse than chance", False
    return "not distinguishable from chance", False
