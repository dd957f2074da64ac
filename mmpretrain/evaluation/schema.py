"""Config of the evaluation (no torch here)."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum


class Metric(StrEnum):
    """classification: of the model's own logits. linear_probe: logistic regression on frozen embeddings.

    retrieval: recall at 1, 5, 10 between every ordered pair of modalities, beside chance.
    """

    classification = "classification"
    linear_probe = "linear_probe"
    retrieval = "retrieval"


@dataclass
class EvaluationConfig:
    """split: folder of held-out shards under data.path. final: metrics after training, written to evaluation.json.

    during: metrics every every_steps steps while training, written to metrics.jsonl (null: none).
    batch: samples per rank and forward pass. max_samples: of a larger split only so many are used, evenly spaced.
    """

    split: str = "test"
    final: list[Metric] = field(default_factory=lambda: [Metric.linear_probe, Metric.retrieval])
    during: list[Metric] = field(default_factory=list)
    every_steps: int | None = None
    batch: int = 256
    max_samples: int = 50_000

    def problems(self) -> list[str]:
        """What is wrong with this section, one sentence each."""
        found = []
        if self.every_steps is not None and self.every_steps < 1:
            found.append(f"evaluation.every_steps is {self.every_steps}: it must be at least 1, or null for never")
        for key in ("batch", "max_samples"):
            if getattr(self, key) < 1:
                found.append(f"evaluation.{key} is {getattr(self, key)}: it must be at least 1")
        return found
