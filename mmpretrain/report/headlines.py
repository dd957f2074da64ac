"""What a run's evaluation means, in a few numbers beside chance."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby

from mmpretrain.comparison.rows import Cell, Row
from mmpretrain.config.evaluation_sections import LOWER_IS_BETTER
from mmpretrain.report.record import Record
from mmpretrain.report.scores import interval_words, number, rows_of

MOST_HEADLINES = 6


@dataclass(frozen=True)
class Headline:
    """One number that matters. verdict: against chance."""

    title: str
    subject: str
    text: str
    beside: str
    verdict: str
    good: bool


def headlines(record: Record) -> list[Headline]:
    """At most MOST_HEADLINES scores of a run, one or two a metric."""
    rows = [row for row in rows_of([record], "") if row.is_drawn and record.name in row.cells]
    found: list[Row] = []
    for _, group in groupby(rows, key=lambda row: row.metric):
        ranked = sorted(group, key=lambda row: _weight(row, record))
        found += ranked[: 2 if ranked[0].metric in ("retrieval", "zero_shot") else 1]
    return [_headline(row, row.cells[record.name]) for row in found[:MOST_HEADLINES]]


def _weight(row: Row, record: Record) -> tuple[float, ...]:
    """Order of headlines: scores of all modalities together first, and of retrieval those of texts and pictures."""
    kinds = {name: entry.get("kind") for name, entry in record.modalities.items()}
    ends = row.subject.split("->")
    texts = sum(kinds.get(end) == "text" for end in ends)
    deep = {"recall@10": 0, "recall@1": 1}.get(row.name, 2)
    return (deep, 0 if len(ends) == 2 and texts == 1 else 1, -row.subject.count("+"), 0 if row.subject == "" else 1)


def _headline(row: Row, cell: Cell) -> Headline:
    text = f"{number(row, cell.value)} %" if row.is_share else number(row, cell.value)
    said = [f"interval {interval_words(row, cell)}"] if interval_words(row, cell) else []
    said += [f"chance {number(row, row.chance)}"] if row.chance is not None else []
    verdict, good = _against_chance(row, cell)
    subject = row.subject.replace("->", " → ")
    name = "" if row.heading.lower().endswith(row.name) else _meaning(row.name)
    return Headline(row.heading, " · ".join(filter(None, (subject, name))), text, ", ".join(said), verdict, good)


def _meaning(name: str) -> str:
    """recall@10 -> own pair among the 10 nearest."""
    kind, _, rank = name.partition("@")
    if kind != "recall" or not rank.isdigit():
        return name.replace("_", " ")
    return "own pair is the nearest" if rank == "1" else f"own pair among the {rank} nearest"


def _against_chance(row: Row, cell: Cell) -> tuple[str, bool]:
    if row.chance is None or cell.low is None or cell.high is None:
        return "", True
    worse = row.name.rpartition("/")[2] in LOWER_IS_BETTER
    if (cell.high < row.chance) if worse else (cell.low > row.chance):
        return "better than chance", True
    if (cell.low > row.chance) if worse else (cell.high < row.chance):
        return "worse than chance", False
    return "not distinguishable from chance", False
