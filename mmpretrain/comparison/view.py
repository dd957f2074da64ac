"""The result of a comparison as a table on the terminal (no torch here)."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from itertools import groupby
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from mmpretrain.comparison.rows import Cell, Row, result_rows
from mmpretrain.comparison.words import mapping_words

LABELS, CELL = 52, 12  # characters: of subject, score and chance; of a score with its interval


def result_view(result: dict[str, Any], files: Sequence[str], *, full: bool, width: int | None = None) -> Group:
    """Scores of all models, chance beside them; what was left out, and where the files are.

    width: of the terminal in characters, None to ask it; where it is too narrow intervals are left to the files.
    """
    rows = [row for row in result_rows(result) if full or row.is_main]
    names = [model["name"] for model in result["models"]]
    fits = LABELS + CELL * len(names) <= (width or shutil.get_terminal_size().columns)
    parts: list[RenderableType] = [_table(part, names, intervals=fits) for _, part in _by_metric(rows)]
    intervals = fits and any(cell.low is not None for row in rows for cell in row.cells.values())
    if not fits and any(cell.low is not None for row in rows for cell in row.cells.values()):
        parts.append(Text(f"intervals: in the files, or on a terminal of {LABELS + CELL * len(names)} characters"))
    return Group(*parts, *_notes(result, full=full, intervals=intervals), _files(files))


def _by_metric(rows: Sequence[Row]) -> list[tuple[str, list[Row]]]:
    return [(heading, list(group)) for heading, group in groupby(rows, key=lambda row: row.heading)]


def _table(rows: Sequence[Row], names: Sequence[str], *, intervals: bool) -> Table:
    made = Table(
        title=f"{rows[0].heading}, in percent", title_justify="left", box=None, pad_edge=False, title_style="bold"
    )
    for column in ("of", "score"):
        made.add_column(column, no_wrap=True)
    for name in [*names, "chance"]:
        made.add_column(Text(name), justify="right", overflow="fold")
    for row in rows:
        cells = [_cell(row, row.cells.get(name), bold=row.best == name, interval=intervals) for name in names]
        chance = Text("" if row.chance is None else _number(row, row.chance), style="dim")
        made.add_row(Text(row.subject), Text(row.name), *cells, chance)
    return made


def _cell(row: Row, cell: Cell | None, *, bold: bool, interval: bool) -> Text:
    if cell is None:
        return Text("-", style="dim")
    text = Text(_number(row, cell.value), style="bold" if bold else "")
    if interval and cell.low is not None and cell.high is not None:
        text.append(f" ±{_number(row, (cell.high - cell.low) / 2)}", style="dim not bold")
    return text


def _number(row: Row, value: float) -> str:
    return f"{100 * value:.1f}" if row.is_share else f"{value:.3g}"


def _notes(result: dict[str, Any], *, full: bool, intervals: bool) -> list[Text]:
    models, split = result["models"], result["split"]
    lines = [f"{model['name']} embeds {mapping_words(model['towers'])}" for model in models]
    reasons: dict[tuple[str, str], list[str]] = {}
    for model in models:
        for metric, why in model["left_out"].items():
            reasons.setdefault((metric, why), []).append(model["name"])
    lines += [f"no {metric} of {', '.join(names)}: {why}" for (metric, why), names in reasons.items()]
    counts = {model["samples"].get(split) for model in models} - {None}
    lines.append(f"{' or '.join(map(str, sorted(counts)))} samples of {split}, the same for all models")
    unreadable = {where: count for model in models for where, count in model["unreadable"].items() if count}
    lines += [
        f"{count} samples of {where} cannot be read and count for no model" for where, count in unreadable.items()
    ]
    if intervals:
        several = "; bold: better than all others beyond these intervals" if len(models) > 1 else ""
        lines.append(f"±: half of the interval that 95 % of other such samples would give{several}")
    return [Text(line) for line in [*lines, *([] if full else ["all scores: --full"])]]


def _files(files: Sequence[str]) -> Text:
    return Text("\n".join(files), no_wrap=True, overflow="ignore")
