"""What a run folder says about training and evaluation (no torch here)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mmpretrain.run_folder import RunFolder, read_lines

CHANCE, LOW, HIGH = "/chance", "/low", "/high"
BESIDE = (CHANCE, LOW, HIGH)  # ends of the names of what stands beside a score


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
    """The final evaluation's flat results; empty if there was none."""
    return json.loads(run.evaluation.read_text(encoding="utf-8")) if run.evaluation.exists() else {}


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
