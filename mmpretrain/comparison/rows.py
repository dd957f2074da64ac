"""The result of a comparison as rows: one score of all models beside chance (no torch here)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from mmpretrain.config.evaluation import Metric
from mmpretrain.config.evaluation_sections import LOWER_IS_BETTER
from mmpretrain.records import BESIDE, stands_beside

# Scores that are shown unless all are asked for, by their names or how these begin; of other metrics all are.
MAIN: Mapping[Metric | None, Sequence[str]] = {
    Metric.linear_probe: ("accuracy", "balanced_accuracy", "average_precision", "f1_macro", "r2", "mae"),
    Metric.retrieval: ("recall@1", "recall@10", "class_recall@1"),
    Metric.robustness: ("probe", "probe/without/*"),
    Metric.zero_shot: ("accuracy", "balanced_accuracy"),
}
# Those that are drawn; of other metrics FIRST.
DRAWN: Mapping[Metric | None, Sequence[str]] = {
    Metric.retrieval: ("recall@1", "recall@10"),
    Metric.robustness: ("probe", "probe/without/*"),
}
FIRST = ("accuracy", "average_precision", "r2", "*/balanced_accuracy")
NO_SHARES = (*LOWER_IS_BETTER, "strength")


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
        """The metric in words, without the score that most of its rows have."""
        return self.metric if self._metric is None else self._metric.heading.partition(":")[0]

    @property
    def _metric(self) -> Metric | None:
        return Metric.__members__.get(self.metric)

    @property
    def is_main(self) -> bool:
        """Whether it is shown unless all are asked for; the rest says little that these do not."""
        return _named(self.name, MAIN.get(self._metric))

    @property
    def is_drawn(self) -> bool:
        """Whether it is in the picture."""
        return self.is_share and _named(self.name, DRAWN.get(self._metric, FIRST))

    @property
    def is_share(self) -> bool:
        """Whether it is a share of 1, and not a rank or a value of the data."""
        return self.name.rpartition("/")[2] not in NO_SHARES

    @property
    def best(self) -> str | None:
        """The model that is better than all others by more than their intervals; None if chance may decide."""
        sign = -1 if self.name.rpartition("/")[2] in LOWER_IS_BETTER else 1
        edges = {
            name: sorted((sign * cell.low, sign * cell.high))
            for name, cell in self.cells.items()
            if cell.low is not None and cell.high is not None
        }
        if len(edges) < max(2, len(self.cells)):
            return None
        first = max(edges, key=lambda name: edges[name][0])
        return first if all(edges[first][0] > high for name, (_, high) in edges.items() if name != first) else None


def result_rows(result: Mapping[str, Any]) -> list[Row]:
    """All scores of ``evaluate.json``, in its order; those that only later models have come last of their metric."""
    every: dict[str, None] = {}
    for model in result["models"]:
        every |= dict.fromkeys(key for key in model["results"] if not stands_beside(key, model["results"]))
    order = {metric: place for place, metric in enumerate(dict.fromkeys(key.split("/", 1)[0] for key in every))}
    return [_row(key, result["models"]) for key in sorted(every, key=lambda key: order[key.split("/", 1)[0]])]


def _named(name: str, names: Sequence[str] | None) -> bool:
    """Whether a score is among ``names``, of which some end in ``*``; None: all are."""
    return names is None or any(fnmatchcase(name, pattern) for pattern in names)


def _row(key: str, models: list[dict[str, Any]]) -> Row:
    metric, *middle = key.split("/", 2)
    subject, name = middle if len(middle) == 2 else ("", *middle)
    having = {model["name"]: model["results"] for model in models if key in model["results"]}
    beside = {n: [found.get(key + end) for end in BESIDE] for n, found in having.items()}
    cells = {n: Cell(found[key], *beside[n][1:]) for n, found in having.items()}
    chances = [chance for chance, *_ in beside.values() if chance is not None]
    return Row(metric, subject, name, cells, chances[0] if chances else None)
