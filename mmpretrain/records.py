"""What a run folder says about training and evaluation (no torch here)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from enum import StrEnum
from typing import Any

from mmpretrain.config.evaluation_sections import LOWER_IS_BETTER
from mmpretrain.run_folder import RunFolder, read_lines

CHANCE, LOW, HIGH = "/chance", "/low", "/high"
GENERAL = "general/"  # before the names of scores on the kept-out data
MAIN = ("recall@1", "recall@5", "median_rank", "accuracy", "balanced_accuracy", "roc_auc", "f1_macro", "r2")
BESIDE = (CHANCE, LOW, HIGH)  # ends of the names of what stands beside a score


class Verdict(StrEnum):
    """What the interval of a difference says."""

    better = "better"
    worse = "worse"
    same = "not distinguishable"


@dataclass(frozen=True)
class Change:
    """A score before and after a run, each with its interval, and the interval of the difference.

    score: its whole name; with ``general/`` before it if it is of the kept-out data. Nones: nothing is known.
    """

    score: str
    before: float
    after: float
    before_low: float | None = None
    before_high: float | None = None
    after_low: float | None = None
    after_high: float | None = None
    change_low: float | None = None
    change_high: float | None = None
    chance: float | None = None

    @property
    def general(self) -> bool:
        """Whether it is of the kept-out data."""
        return self.score.startswith(GENERAL)

    @property
    def verdict(self) -> Verdict | None:
        """Whether the score got better; None without an interval of the difference."""
        if self.change_low is None or self.change_high is None:
            return None
        if self.change_low <= 0 <= self.change_high:
            return Verdict.same
        lower_is_better = self.score.rpartition("/")[2] in LOWER_IS_BETTER
        return Verdict.better if (self.change_low > 0) is not lower_is_better else Verdict.worse


@dataclass(frozen=True)
class Score:
    """One evaluated number. subject: what was evaluated (``left``, ``left->caption``), "" for the whole model.

    low, high: the interval of ``value``, where there is one.
    """

    metric: str
    subject: str
    name: str
    value: float
    chance: float | None
    low: float | None = None
    high: float | None = None


def stands_beside(key: str, results: Mapping[str, float]) -> bool:
    """Whether ``key`` is the chance or the interval of another score of ``results``; a class may be named ``low``."""
    return any(key.endswith(end) and key.removesuffix(end) in results for end in BESIDE)


def parse_scores(results: dict[str, float]) -> list[Score]:
    """``METRIC/[SUBJECT/]NAME -> value`` as scores, in the same order, each with what stands beside it."""
    found = []
    for key, value in results.items():
        if not stands_beside(key, results):
            metric, *middle = key.split("/", 2)
            subject, name = middle if len(middle) == 2 else ("", *middle)
            found.append(Score(metric, subject, name, value, *(results.get(key + end) for end in BESIDE)))
    return found


def read_evaluation(run: RunFolder) -> dict[str, float]:
    """The final evaluation's flat results on the run's own data; empty if there was none."""
    found = json.loads(run.evaluation.read_text(encoding="utf-8")) if run.evaluation.exists() else {}
    return {key: value for key, value in found.items() if not key.startswith(GENERAL)}


def read_changes(run: RunFolder) -> list[Change]:
    """The scores before and after; empty where the start was not evaluated, or the run has not ended."""
    if not run.changes.exists():
        return []
    known = {entry.name for entry in fields(Change)}
    rows = json.loads(run.changes.read_text(encoding="utf-8"))["changes"]
    return [Change(**{key: value for key, value in row.items() if key in known}) for row in rows]


def main_changes(changes: Sequence[Change]) -> list[Change]:
    """Those that a short table shows: no classes of their own, no variants of another score."""
    known = {row.score for row in changes}
    return [
        row
        for row in changes
        if row.score.rpartition("/")[2] in MAIN
        and "/recall/" not in row.score
        and not (row.score.endswith("/balanced_accuracy") and row.score.replace("/balanced_", "/") in known)
    ]


def change_lines(changes: Sequence[Change]) -> list[str]:
    """A table of them in plain text, the kept-out data below the run's own; empty without any."""
    rows = main_changes(changes)
    cells = [("", "before", "after", "change"), *(change_cells(row) for row in rows)]
    widths = [max(len(entry[column]) for entry in cells) for column in range(4)]
    lines = [
        "  ".join(text.ljust(width) for text, width in zip(entry, widths, strict=True)).rstrip() for entry in cells
    ]
    kept_out = [line for line, row in zip(lines[1:], rows, strict=True) if row.general]
    own = [line for line, row in zip(lines[1:], rows, strict=True) if not row.general]
    return [*([lines[0], *own] if own else []), *(["on the kept-out data:", *kept_out] if kept_out else [])]


def change_cells(row: Change) -> tuple[str, str, str, str]:
    """What a table says of a score: its name, before, after, and the difference with what its interval says."""
    difference = _between(f"{row.after - row.before:+.3f}", row.change_low, row.change_high, "+.3f")
    return (
        row.score.removeprefix(GENERAL),
        _between(f"{row.before:.3f}", row.before_low, row.before_high, ".3f"),
        _between(f"{row.after:.3f}", row.after_low, row.after_high, ".3f"),
        f"{difference} {row.verdict or ''}".rstrip(),
    )


def _between(value: str, low: float | None, high: float | None, form: str) -> str:
    """``value`` with its interval behind it, if there is one."""
    return value if low is None or high is None else f"{value} [{low:{form}}, {high:{form}}]"


def read_training(run: RunFolder) -> list[dict[str, Any]]:
    """The logged training steps, increasing; of a step logged twice (a run that was continued) the later line."""
    steps = {line["step"]: line for line in read_lines(run.metrics) if "loss" in line}
    return [steps[step] for step in sorted(steps)]


def read_evaluations(run: RunFolder) -> dict[str, dict[int, float]]:
    """The evaluations made while training: ``eval/SPLIT/NAME`` -> step -> value, steps increasing."""
    curves: dict[str, dict[int, float]] = {}
    for line in sorted(read_lines(run.metrics), key=lambda line: line["step"]):
        for key, value in line.items():
            if key.startswith("eval/"):
                curves.setdefault(key, {})[line["step"]] = value
    return curves


def sizes_in_words(sizes: Sequence[Mapping[str, Any]]) -> str | None:
    """``2 ranks (ZeRO 1, float32) until step 40, then 3 ranks (ZeRO 3, float32)``; None if a run had but one size.

    sizes: as the run's status has them.
    """
    if len(sizes) < 2:
        return None
    counts = ("1 rank" if size["ranks"] == 1 else f"{size['ranks']} ranks" for size in sizes)
    parts = [f"{n} (ZeRO {size['zero']}, {size['precision']})" for n, size in zip(counts, sizes, strict=True)]
    ends = [*(f" until step {size['step']}" for size in sizes[1:]), ""]
    return ", then ".join(part + end for part, end in zip(parts, ends, strict=True))


def told_ending(status: Mapping[str, Any]) -> list[str]:
    """How a run ended in other than the plain way, by its status: an early stop, and which mixture is released."""
    lines: list[str] = []
    if early := status.get("stopped_early"):
        lines.append(
            f"stopped early, after step {early['step']} of {status.get('total_steps', '?')}: {early['patience']}"
            f" measurements in a row of {early['score']} were no better than {early['value']:.4f} after step"
            f" {early['best']}, which is released"
        )
    if mixed := status.get("interpolation"):
        lines.append(f"{mixed['score']} on {mixed['split']}, by the share of the training in a mixture with the start:")
        for alpha, value in mixed["scores"].items():
            lines.append(f"  {alpha:>5}  {value:.4f}{'  (released)' if float(alpha) == mixed['alpha'] else ''}")
    return lines
