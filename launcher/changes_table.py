"""The scores of a fine-tuning before and after, for people (no torch here)."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from mmpretrain.records import GENERAL, Change, main_changes, read_changes
from mmpretrain.run_folder import RunFolder


def show_changes(folder: RunFolder, console: Console) -> None:
    """Print the table of a run that was compared with its start; nothing of any other."""
    rows = main_changes(read_changes(folder))
    if not rows:
        return
    table = Table(box=None, pad_edge=False)
    for heading in ("data", "score", "before", "after", "change", ""):
        table.add_column(heading, overflow="fold")
    for row in rows:
        table.add_row(*cells(row))
    console.print(table)


def cells(row: Change) -> tuple[str, ...]:
    """One line: which data, the score, before, after, the difference, and what its interval says."""
    return (
        "kept out" if row.general else "own",
        row.score.removeprefix(GENERAL),
        _between(f"{row.before:.3f}", row.before_low, row.before_high, ".3f"),
        _between(f"{row.after:.3f}", row.after_low, row.after_high, ".3f"),
        _between(f"{row.after - row.before:+.3f}", row.change_low, row.change_high, "+.3f"),
        row.verdict or "",
    )


def _between(value: str, low: float | None, high: float | None, form: str) -> str:
    return value if low is None or high is None else f"{value} ({low:{form}} to {high:{form}})"
