"""metrics.jsonl as columns, however long and however damaged it is."""

from __future__ import annotations

import json
from array import array
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

Line = dict[str, object]


@dataclass(frozen=True)
class Column:
    """One number over a run. steps, samples, values: float64 [n], steps increasing; values may be nan or infinite."""

    steps: np.ndarray
    samples: np.ndarray
    values: np.ndarray


@dataclass(frozen=True)
class Metrics:
    """Columns by name, and the number of lines that could not be read (an unfinished last one is none)."""

    columns: dict[str, Column] = field(default_factory=dict)
    damaged: int = 0


@dataclass
class _Raw:
    steps: array[float] = field(default_factory=lambda: array("d"))
    values: array[float] = field(default_factory=lambda: array("d"))


def read_metrics(path: Path, batch: float | None) -> Metrics:
    """All numbers of the file; empty without one. batch: samples a step, where lines do not say how many were seen."""
    raw: dict[str, _Raw] = defaultdict(_Raw)
    damaged = 0
    for line in _lines(path):
        if line is None:
            damaged += 1
            continue
        step = float(line["step"])  # type: ignore[arg-type]
        for key, value in line.items():
            if value is None or (isinstance(value, int | float) and not isinstance(value, bool)):
                raw[key].steps.append(step)
                raw[key].values.append(np.nan if value is None else float(value))
    return Metrics(_columns(raw, batch), damaged)


def _lines(path: Path) -> Iterator[Line | None]:
    """Each whole line; None for one that is damaged."""
    if not path.is_file():
        return
    with path.open(encoding="utf-8", errors="replace") as stream:
        for text in stream:
            if not text.endswith("\n"):
                return  # a running run is writing it, or it was killed there
            try:
                line = json.loads(text)
                yield line if isinstance(line, dict) and _is_step(line.get("step")) else None
            except (ValueError, RecursionError):
                yield None


def _is_step(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e18


def _columns(raw: dict[str, _Raw], batch: float | None) -> dict[str, Column]:
    plain = {key: _sorted(np.frombuffer(c.steps), np.frombuffer(c.values)) for key, c in raw.items()}
    steps, samples = plain.get("samples", (np.zeros(0), np.zeros(0)))
    if len(steps) and not batch:
        batch = float(samples[-1] / max(steps[-1], 1))
    return {key: Column(at, at * (batch or 1.0), values) for key, (at, values) in plain.items() if key != "step"}


def _sorted(steps: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """By step; of a step logged twice (a run that was continued) the later line."""
    unique, last = np.unique(steps[::-1], return_index=True)
    return unique, values[::-1][last]
