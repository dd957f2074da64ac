"""Config of the evaluation (no torch here)."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum


class Metric(StrEnum):
    """What is measured of a model."""

    classification = "classification"
    """Classification by the model's own logits (methods with a classifier)."""

    factors = "factors"
    """A linear probe for every factor that the dataset's ``dataset.json`` knows of."""

    linear_probe = "linear_probe"
    """Logistic regression from frozen embeddings to labels."""

    retrieval = "retrieval"
    """Recall at 1, 5 and 10 between every ordered pair of modalities, beside chance. The only one that needs no
    labels."""

    @property
    def probes(self) -> bool:
        """Whether it fits a classifier on a split of its own (``evaluation.probe_split``)."""
        return self in (Metric.factors, Metric.linear_probe)


@dataclass
class EvaluationConfig:
    """What is measured, when, and on which samples."""

    split: str = "test"
    """Folder of held-out shards under ``data.path``, which metrics are measured on."""

    probe_split: str = "train"
    """Folder of shards under ``data.path`` that probes learn from."""

    final: list[Metric] = field(default_factory=lambda: [Metric.linear_probe, Metric.retrieval])
    """Metrics after training, written to ``evaluation.json``."""

    during: list[Metric] = field(default_factory=list)
    """Metrics while training, every ``evaluation.every_steps`` steps, written to ``metrics.jsonl``."""

    every_steps: int | None = None
    """Optimizer steps between two measurements while training; null: none while training."""

    batch: int = 256
    """Samples per rank and forward pass."""

    max_samples: int = 50_000
    """Of a larger split only so many samples are used, evenly spaced."""

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
