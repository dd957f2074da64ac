"""The result of a comparison as rows: one score of all models beside chance (no torch here)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mmpretrain.config.evaluation import Metric
from mmpretrain.records import CHANCE

LOW, HIGH = "/low", "/high"
SMALLER_IS_BETTER = ("median_rank",)


@dataclass(frozen=True)
class Cell:
    """A model's score, and the interval that it has on other samples of the same kind, None if that is not known."""

    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Row:
    """One score. subject: what it is of (``left->caption``), "" for the whole model. cells: model -> its score, of
    those that have it. chance: None where there is none."""

    metric: str
    subject: str
    name: str
    cells: dict[str, Cell]
    chance: float | None

    @property
    def heading(self) -> str:
        """The metric in words."""
        return Metric(self.metric).heading if self.metric in list(Metric) else self.metric

    @property
    def is_main(self) -> bool:
        """Whether it is shown unless all are asked for; the rest says little that these do not."""
        return not self.name.startswith("recall/") and self.name not in ("recall@5", "median_rank")

    @property
    def is_share(self) -> bool:
        """Whether it is a share of 1, and not a rank."""
        return self.name not in SMALLER_IS_BETTER

    @property
    def best(self) -> str | None:
        """The model that is better than all others by more than their intervals; None if chance may decide."""
        sign = -1 if self.name in SMALLER_IS_BETTER else 1
        ordered = sorted(self.cells, key=lambda name: -sign * self.cells[name].value)
        if len(ordered) < 2:
            return None
        first, second = (self.cells[name] for name in ordered[:2])
        if first.low is None or first.high is None or second.low is None or second.high is None:
            return None
        apart = first.low > second.high if sign > 0 else first.high < second.low
        return ordered[0] if apart else None


def result_rows(result: Mapping[str, Any]) -> list[Row]:
    """All scores of ``evaluate.json``, in its order; those that only later models have come last of their metric."""
    every: dict[str, None] = {}
    for model in result["models"]:
        every |= dict.fromkeys(key for key in model["results"] if not key.endswith((CHANCE, LOW, HIGH)))
    order = {metric: place for place, metric in enumerate(dict.fromkeys(key.split("/", 1)[0] for key in every))}
    return [_row(key, result["models"]) for key in sorted(every, key=lambda key: order[key.split("/", 1)[0]])]


def _row(key: str, models: list[dict[str, Any]]) -> Row:
    metric, *middle = key.split("/", 2)
    subject, name = middle if len(middle) == 2 else ("", *middle)
    having = {model["name"]: model["results"] for model in models if key in model["results"]}
    cells = {n: Cell(found[key], found.get(key + LOW), found.get(key + HIGH)) for n, found in having.items()}
    chances = [found[key + CHANCE] for found in having.values() if key + CHANCE in found]
    return Row(metric, subject, name, cells, chances[0] if chances else None)
