"""Config of the evaluation (no torch here)."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum


class Metric(StrEnum):
    """classification: of the model's own logits. linear_probe: logistic regression on frozen embeddings.

    factors: one such regression for every factor of the dataset (``dataset.json``). retrieval: recall at 1, 5, 10
    between every ordered pair of modalities, beside chance.
    """

    classification = "classification"
    factors = "factors"
    linear_probe = "linear_probe"
    retrieval = "retrieval"

    @property
    def probes(self) -> bool:
        """Whether it fits a classifier on a split of its own (``evaluation.probe_split``)."""
        return self in (Metric.factors, Metric.linear_probe)


@dataclass
class EvaluationConfig:
    """split: folder of held-out shards under data.path. probe_split: the one that probes learn from.

    final: metrics after training, written to evaluation.json. during: metrics every every_steps steps while training,
    written to metrics.jsonl (null: none).
    batch: samples per rank and forward pass. max_samples: of a larger split only so many are used, evenly spaced.
    """

    split: str = "test"
    probe_split: str = "train"
    final: list[Metric] = field(default_factory=lambda: [Metric.linear_probe, Metric.retrieval])
    during: list[Metric] = field(default_factory=list)
    every_steps: int | None = None
    batch: int = 256
    max_samples: int = 50_000

    @property
    def splits(self) -> list[str]:
        """The folders of shards that the metrics read."""
        probes = any(metric.probes for metric in (*self.final, *self.during))
        return list(dict.fromkeys([self.split, *([self.probe_split] if probes else [])]))

    def problems(self) -> list[str]:
        """What is wrong with this section, one sentence each."""
        found = []
        if self.every_steps is not None and self.every_steps < 1:
            found.append(f"evaluation.every_steps is {self.every_steps}: it must be at least 1, or null for never")
        for key in ("batch", "max_samples"):
            if getattr(self, key) < 1:
                found.append(f"evaluation.{key} is {getattr(self, key)}: it must be at least 1")
        return found
