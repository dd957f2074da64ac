"""Evaluations as tables, several runs side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

from mmpretrain.comparison.rows import Cell, Row, result_rows
from mmpretrain.config.evaluation_sections import LOWER_IS_BETTER
from mmpretrain.records import GENERAL, Verdict
from mmpretrain.report.axis import short
from mmpretrain.report.chart import COLORS
from mmpretrain.report.record import Record

BEFORE = " before"
CHANGES = {
    Verdict.better: ("better than before", "good"),
    Verdict.worse: ("worse than before", "bad"),
    Verdict.same: ("not distinguishable", "soft"),
}


@dataclass(frozen=True)
class Bar:
    """A score on a line from 0 to 1, in percent. style: the color of its run, and whether it is what it was before."""

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
    """A row of a table. verdict: what can be said of the columns. tone: good, bad or soft."""

    subject: str
    name: str
    cells: list[Shown | None]
    chance: str
    verdict: str
    tone: str
    bars: list[Bar]
    chance_at: float | None


@dataclass(frozen=True)
class Column:
    """A run, or what it was before training. name: in rows. before: whether it is what it was."""

    name: str
    label: str
    style: str
    before: bool = False


@dataclass(frozen=True)
class Table:
    """One metric. columns: runs, with what they were before training where that was measured."""

    title: str
    columns: list[Column]
    lines: list[Line]
    rest: list[Line]
    intervals: bool


def tables(records: Sequence[Record]) -> list[Table]:
    """One per metric, of the user's data first; empty without evaluations."""
    return [*_tables(records, ""), *_tables(records, GENERAL)]


def number(row: Row, value: float) -> str:
    """A score in percent, or as it is where it is no share."""
    return f"{100 * value:.1f}" if row.is_share else short(value)


def _tables(records: Sequence[Record], prefix: str) -> list[Table]:
    rows = rows_of(records, prefix)
    alone = len(records) == 1
    columns = [column for run, record in enumerate(records) for column in _columns(record, run, prefix, alone)]
    made = []
    for heading, group in groupby(rows, key=lambda row: row.heading):
        changed = _changed(records[0], prefix) if alone else {}
        lines = [(row, _line(row, columns, changed)) for row in group]
        main = [line for row, line in lines if row.is_main]
        rest = [line for row, line in lines if not row.is_main]
        title = f"{heading}, on the kept-out data" if prefix else heading
        intervals = any(cell.beside for line in [*main, *rest] for cell in line.cells if cell)
        made.append(Table(title, columns, main or rest, rest if main else [], intervals))
    return made


def _columns(record: Record, run: int, prefix: str, alone: bool) -> list[Column]:
    name, style = record.name, f"c{run % COLORS}"
    label = "before" if alone else f"{name}, before"
    before = [Column(name + BEFORE, label, f"{style} before", before=True)] if _chosen(record.before, prefix) else []
    after = [Column(name, ("after" if before else "value") if alone else name, style)]
    return [*before, *(after if before or _chosen(record.scores, prefix) else [])]


def rows_of(records: Sequence[Record], prefix: str) -> list[Row]:
    """All scores of all runs, those before training as runs of their own. prefix: GENERAL (kept-out data) or ""."""
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


def _changed(record: Record, prefix: str) -> dict[str, Verdict]:
    """What intervals of differences say of a run's scores, which is more than those of the scores do."""
    known = {name.removeprefix(prefix): change.verdict for name, change in record.changes.items() if prefix in name}
    return {name: verdict for name, verdict in known.items() if verdict is not None}


def _line(row: Row, columns: Sequence[Column], changed: Mapping[str, Verdict]) -> Line:
    key = "/".join(part for part in (row.metric, row.subject, row.name) if part)
    compared = _compared(row, columns)
    best = compared.best if len(compared.cells) > 1 else None
    cells = [_shown(row, row.cells.get(column.name), best == column.name and key not in changed) for column in columns]
    bars, chance_at = [], None
    if row.is_share:
        bars = [_bar(column.style, row.cells[column.name]) for column in columns if column.name in row.cells]
        chance_at = None if row.chance is None else _percent(row.chance)
    chance = "" if row.chance is None else number(row, row.chance)
    subject = row.subject.replace("->", " → ") or "model"
    verdict, tone = _verdict(compared, best) if key not in changed else CHANGES[changed[key]]
    return Line(subject, row.name.replace("_", " "), cells, chance, verdict, tone, bars, chance_at)


def _compared(row: Row, columns: Sequence[Column]) -> Row:
    """Several runs are compared as they ended, one with what it was before."""
    ended = {column.name for column in columns if not column.before}
    if len(ended) < 2:
        return row
    return replace(row, cells={name: cell for name, cell in row.cells.items() if name in ended})


def _shown(row: Row, cell: Cell | None, best: bool) -> Shown | None:
    if cell is None:
        return None
    return Shown(number(row, cell.value), interval_words(row, cell), best)


def interval_words(row: Row, cell: Cell) -> str:
    """The interval of a score; empty where it is not known."""
    if cell.low is None or cell.high is None:
        return ""
    return f"{number(row, cell.low)} to {number(row, cell.high)}"


def _bar(style: str, cell: Cell) -> Bar:
    known = cell.low is not None and cell.high is not None
    low, high = (_percent(cell.low or 0.0), _percent(cell.high or 0.0)) if known else (None, None)
    return Bar(style, _percent(cell.value), low, high)


def _percent(value: float) -> float:
    return round(100 * min(max(value, 0.0), 1.0), 2)


def _verdict(row: Row, best: str | None) -> tuple[str, str]:
    """Of several columns: which is best, or that chance may decide; and its tone."""
    if len(row.cells) < 2:
        return "", "soft"
    changed = [name for name in row.cells if name.endswith(BEFORE) and name.removesuffix(BEFORE) in row.cells]
    if best is not None and changed:
        return CHANGES[Verdict.worse if best in changed else Verdict.better]
    if best is not None:
        return f"best: {best}", "good"
    ahead = _ahead(row)
    if len(ahead) in (0, len(row.cells)):
        return "not distinguishable" if ahead else "", "soft"
    return f"ahead, not distinguishable: {', '.join(ahead)}", "soft"


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
