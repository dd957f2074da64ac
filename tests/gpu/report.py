"""What `make gpu` found, as Markdown that can be pasted into benchmarks/RESULTS.md."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from itertools import groupby
from typing import Any

from tests.gpu.parts import Line, Outcome


def markdown(outcomes: Sequence[Outcome], where: str, seconds: float) -> str:
    """where: the device and the versions, in words."""
    parts = [f"`make gpu`, {date.today().isoformat()}, {where}, {seconds:.0f} s in all."]
    wrong = [sentence for outcome in outcomes for sentence in outcome.wrong]
    parts.append(
        "\n".join(["Wrong:", "", *(f"- {_cell(sentence)}" for sentence in wrong)]) if wrong else "No check failed."
    )
    parts += [_section(outcome) for outcome in outcomes]
    return "\n\n".join(parts) + "\n"


def _section(outcome: Outcome) -> str:
    checks = [line for line in outcome.lines if "check" in line]
    said = [f"### {outcome.part.title}"]
    if checks:
        good = sum(not line.get("wrong") for line in checks)
        said.append(f"{good} of {len(checks)} checks passed.")
    if outcome.cut:
        said.append(f"Cut: the {outcome.part.seconds} s of this part were over; what had come by then is here.")
    if outcome.error:
        said.append(f"It {_cell(outcome.error)}")
    rows = [line for line in outcome.lines if "table" in line]
    said += [_table(name, list(lines)) for name, lines in groupby(rows, key=lambda line: line["table"])]
    return "\n\n".join(said)


def _table(name: str, lines: Sequence[Line]) -> str:
    """All keys of all rows are columns, in the order in which they first come."""
    columns = list(dict.fromkeys(key for line in lines for key in line if key != "table"))
    head = f"{name}\n\n| {' | '.join(columns)} |\n|{'---|' * len(columns)}"
    return "\n".join([head, *(f"| {' | '.join(_cell(line.get(key)) for key in columns)} |" for line in lines)])


def _cell(value: Any) -> str:
    if value is None:
        return ""
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    return text.replace("|", "\\|").replace("\n", " ")
