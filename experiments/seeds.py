"""Several seeds of one experiment: which of a run's many evaluations is quoted, and how far the runs differ.

Without a validation split the best evaluation is chosen by the very samples that it is quoted on, and the last one is
a single draw from a noisy curve; so all three readings stand side by side: last, mean of the second half, best.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mmpretrain.records import read_evaluations
from mmpretrain.run_folder import RunFolder


@dataclass(frozen=True)
class CurveReading:
    """Three readings of one run's curve. best: at the step where the choosing score is highest (the earliest such)."""

    last: float
    second_half: float
    best: float


def read_run(run_folder: Path, scores: Sequence[str], split: str = "test") -> dict[str, CurveReading]:
    """The readings of ``scores`` (names like ``classification/accuracy``) of one run; the first score chooses the best.

    The second half is made of the evaluations at or after half of the last evaluated step.
    Raises ValueError if the run did not evaluate a score while training.
    """
    curves = read_evaluations(RunFolder(run_folder))
    missing = [score for score in scores if f"eval/{split}/{score}" not in curves]
    if missing:
        raise ValueError(
            f"{run_folder}: no evaluation of {', '.join(missing)} on {split} while training:"
            " set evaluation.during and evaluation.every_steps"
        )
    chooser = curves[f"eval/{split}/{scores[0]}"]
    best = max(chooser, key=lambda step: chooser[step])
    return {score: _reading(curves[f"eval/{split}/{score}"], best) for score in scores}


def seeds_table(runs: Mapping[str, Sequence[Path]], scores: Sequence[str], split: str = "test") -> str:
    """A Markdown table of mean and standard deviation (n - 1) over runs, in percent.

    ``runs``: row name -> the run folders of its seeds. One row per name and score; the first score chooses the best.
    """
    lines = [
        "| run | seeds | score | last | second half | best |",
        "|---|---|---|---|---|---|",
    ]
    for name, folders in runs.items():
        readings = [read_run(folder, scores, split) for folder in folders]
        for score in scores:
            cells = [
                _mean_and_deviation([getattr(reading[score], kind) for reading in readings])
                for kind in ("last", "second_half", "best")
            ]
            lines.append(f"| {name} | {len(folders)} | {score} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def paired_table(pairs: Mapping[str, tuple[Sequence[Path], Sequence[Path]]], scores: Sequence[str]) -> str:
    """A Markdown table of differences on the test split, first minus second, in points: mean and its standard error.

    ``pairs``: row name -> the run folders of both, in the order of the same seeds. The standard error is that over the
    seeds: how far the mean difference would move with other seeds, on the same test samples.
    Raises ValueError for rows with different numbers of runs.
    """
    lines = [
        "| difference | pairs | score | last | second half | best |",
        "|---|---|---|---|---|---|",
    ]
    for name, (first, second) in pairs.items():
        read = [(read_run(one, scores), read_run(other, scores)) for one, other in zip(first, second, strict=True)]
        for score in scores:
            cells = [
                _mean_and_error([getattr(one[score], kind) - getattr(other[score], kind) for one, other in read])
                for kind in ("last", "second_half", "best")
            ]
            lines.append(f"| {name} | {len(read)} | {score} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _mean_and_error(values: list[float]) -> str:
    error = f" ± {100 * np.std(values, ddof=1) / np.sqrt(len(values)):.2f}" if len(values) > 1 else ""
    return f"{100 * np.mean(values):+.2f}{error}"


def _reading(curve: dict[int, float], best: int) -> CurveReading:
    last = max(curve)
    late = [value for step, value in curve.items() if 2 * step >= last]
    return CurveReading(curve[last], float(np.mean(late)), curve[best])


def _mean_and_deviation(values: list[float]) -> str:
    deviation = f" ± {100 * np.std(values, ddof=1):.2f}" if len(values) > 1 else ""
    return f"{100 * np.mean(values):.2f}{deviation}"
