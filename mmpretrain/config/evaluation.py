"""Config of the evaluation, and a row for every evaluator: what it needs and where it is (no torch here)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from mmpretrain.config.evaluation_sections import (
    BestConfig,
    Captions,
    FactorsConfig,
    KnnConfig,
    LinearProbeConfig,
    Released,
    RetrievalConfig,
    Search,
    ZeroShotConfig,
    score_metric,
)
from mmpretrain.config.keys import FREE, MEASURED

__all__ = [
    "BestConfig",
    "Captions",
    "EvaluationConfig",
    "FactorsConfig",
    "KnnConfig",
    "LinearProbeConfig",
    "Metric",
    "Need",
    "Released",
    "RetrievalConfig",
    "Search",
    "ZeroShotConfig",
]

TRAIN = "train"  # the folder of shards that runs learn from


class Need(StrEnum):
    """What an evaluator cannot do without. Each is checked once, on the floor where its fact is known: labels and
    logits by the config, factors and probe_split by the dataset, equal_widths by the model."""

    labels = "labels"
    """Labels of samples."""

    logits = "logits"
    """Logits of a classifier that ships with the model."""

    factors = "factors"
    """Factors that ``dataset.json`` names."""

    probe_split = "probe_split"
    """Shards to learn from, ``evaluation.probe_split``."""

    equal_widths = "equal_widths"
    """All modalities' embeddings have one width."""

    one_class = "one_class"
    """Labels that are one class per sample, not several or a measured value."""

    class_names = "class_names"
    """Names of all classes, by ``evaluation.zero_shot.classes`` or ``dataset.json``."""

    texts = "texts"
    """A modality that is a text."""


class Metric(StrEnum):
    """What is measured of a model; a row each: its name, its implementation, its heading in pictures, its needs."""

    implementation: str
    heading: str
    needs: tuple[Need, ...]

    classification = (
        "classification",
        "mmpretrain.evaluation.classification.Classification",
        "Classification by the model",
        (Need.labels, Need.one_class, Need.logits),
    )
    """Classification by the model's own logits (methods with a classifier)."""

    factors = (
        "factors",
        "mmpretrain.evaluation.factor_probes.FactorProbes",
        "Factors read by linear probes from frozen embeddings",
        (Need.labels, Need.one_class, Need.factors, Need.probe_split),
    )
    """A linear probe for every factor that the dataset's ``dataset.json`` knows of."""

    knn = (
        "knn",
        "mmpretrain.evaluation.knn.Knn",
        "Weighted vote of the nearest neighbors: accuracy",
        (Need.labels, Need.one_class, Need.probe_split),
    )
    """Weighted vote of the nearest neighbors among the frozen embeddings of ``evaluation.probe_split``."""

    linear_probe = (
        "linear_probe",
        "mmpretrain.evaluation.linear_probe.LinearProbe",
        "Linear probe on frozen embeddings: accuracy",
        (Need.labels, Need.probe_split),
    )
    """Logistic regression from frozen embeddings to labels."""

    retrieval = (
        "retrieval",
        "mmpretrain.evaluation.retrieval.Retrieval",
        "Retrieval of the exact pair",
        (Need.equal_widths,),
    )
    """Recall at 1, 5 and 10 between every ordered pair of modalities, beside chance. Needs no labels."""

    robustness = (
        "robustness",
        "mmpretrain.evaluation.robustness.Robustness",
        "What is left without a modality: accuracy",
        (Need.labels, Need.one_class, Need.probe_split),
    )
    """What a linear probe and the nearest neighbors still read where one modality is left out; a fusion is run without
    it."""

    zero_shot = (
        "zero_shot",
        "mmpretrain.evaluation.zero_shot.ZeroShot",
        "Zero-shot classification by class names: accuracy",
        (Need.labels, Need.one_class, Need.texts, Need.class_names, Need.equal_widths),
    )
    """Classes by the nearest of their names, written into ``evaluation.zero_shot.templates``. Learns nothing."""

    def __new__(cls, name: str, implementation: str, heading: str, needs: tuple[Need, ...]) -> Metric:
        """A member that equals its name."""
        member = str.__new__(cls, name)
        member._value_ = name
        member.implementation, member.heading, member.needs = implementation, heading, needs
        return member


@dataclass
class EvaluationConfig:
    """What is measured, when, and on which samples."""

    split: str = field(default="test", metadata=FREE)
    """Folder of held-out shards under ``data.path``, which metrics are measured on."""

    probe_split: str = field(default="train", metadata=MEASURED)
    """Folder of shards under ``data.path`` that probes learn from."""

    final: list[Metric] = field(default_factory=lambda: [Metric.linear_probe, Metric.retrieval], metadata=FREE)
    """Metrics after training, written to ``evaluation.json``."""

    during: list[Metric] = field(default_factory=list, metadata=FREE)
    """Metrics while training, every ``evaluation.every_steps`` steps, written to ``metrics.jsonl``."""

    every_steps: int | None = field(default=None, metadata=MEASURED)
    """Optimizer steps between two measurements while training; null: none while training."""

    batch: int = field(default=256, metadata=MEASURED)
    """Samples per rank and forward pass."""

    max_samples: int = field(default=50_000, metadata=MEASURED)
    """Of a larger split only so many samples are used, evenly spaced."""

    factors: FactorsConfig = field(default_factory=FactorsConfig, metadata=MEASURED)
    """Settings of the metric factors."""

    knn: KnnConfig = field(default_factory=KnnConfig, metadata=MEASURED)
    """Settings of the metric knn."""

    linear_probe: LinearProbeConfig = field(default_factory=LinearProbeConfig, metadata=MEASURED)
    """Settings of the metric linear_probe."""

    retrieval: RetrievalConfig = field(default_factory=RetrievalConfig, metadata=MEASURED)
    """Settings of the metric retrieval."""

    zero_shot: ZeroShotConfig = field(default_factory=ZeroShotConfig, metadata=MEASURED)
    """Settings of the metric zero_shot."""

    intervals: bool = field(default=True, metadata=FREE)
    """Whether scores after training have ``low`` and ``high`` beside them: of what they would be on other samples of
    the same kind, the middle 95 %."""

    best: BestConfig = field(default_factory=BestConfig)
    """Keeping the checkpoint that does best on a split of its own."""

    release: Released = Released.last
    """Which weights are evaluated on ``split`` and released at the end."""

    @property
    def metrics(self) -> list[Metric]:
        """All that are wanted at some time, once each, in the order of their names."""
        return sorted({*self.final, *self.watched})

    @property
    def watched(self) -> list[Metric]:
        """Those that are measured while training, once each, in the order of their names."""
        best = Metric.__members__.get(score_metric(self.best.score)) if self.best.score else None
        return sorted({*self.during, *([best] if best else [])})

    @property
    def watched_split(self) -> str:
        """The folder of shards that they are measured on."""
        return self.best.split if self.best.score else self.split

    @property
    def needs(self) -> set[Need]:
        """What the wanted metrics need."""
        return {need for metric in self.metrics for need in metric.needs}

    @property
    def splits(self) -> list[str]:
        """The folders of shards that the metrics read."""
        return list(self.least_samples)

    @property
    def least_samples(self) -> dict[str, int]:
        """The splits that the metrics read, each with the number of samples that it must have."""
        found = {self.split: 1} if self.metrics else {}
        if self.best.score:
            found[self.best.split] = 1
        if Need.probe_split in self.needs:
            two_classes = 2
            folds = self.linear_probe.folds if self.linear_probe.candidates else 0
            found[self.probe_split] = max(two_classes, folds, self.knn.k if Metric.knn in self.metrics else 0)
        return found

    def problems(self) -> list[str]:
        """What is wrong with this section, one sentence each."""
        found = []
        if self.every_steps is not None and self.every_steps < 1:
            found.append(f"evaluation.every_steps is {self.every_steps}: it must be at least 1, or null for never")
        for key in ("batch", "max_samples"):
            if getattr(self, key) < 1:
                found.append(f"evaluation.{key} is {getattr(self, key)}: it must be at least 1")
        found += [*self.knn.problems(), *self.linear_probe.problems(), *self.zero_shot.problems()]
        return found + self._best()

    def _best(self) -> list[str]:
        """What is wrong with choosing a checkpoint."""
        best, key, search = self.best, "evaluation.best", self.factors.search
        patience = self._patience()
        if not best.score:
            if patience:
                return patience
            needed = f"{key}.score, as retrieval/image->caption/recall@1"
            return [f"evaluation.release=best needs {needed}"] if self.release is Released.best else []
        found = patience
        if self.every_steps is None:
            found.append(f"{key}.score is measured every evaluation.every_steps steps, which is null: set it")
        if "/searched_" in best.score and search is not Search.always:
            found.append(
                f"{key}.score is of a searched probe, and evaluation.factors.search is {search}: set it to always"
            )
        if best.split == self.split:
            found.append(
                f"{key}.split and evaluation.split are both {best.split!r}: what was chosen by a split cannot be judged"
                " by it; set one of them to another folder of shards"
            )
        elif best.split in {TRAIN, self.probe_split}:
            found.append(f"{key}.split is {best.split!r}, which is learned from: set it to held-out shards")
        return found

    def _patience(self) -> list[str]:
        """What is wrong with stopping early."""
        patience, key = self.best.patience, "evaluation.best.patience"
        if patience is None:
            return []
        if patience < 1:
            return [f"{key} is {patience}: it must be at least 1, or null for no early stop"]
        if not self.best.score:
            return [f"{key} counts measurements of evaluation.best.score, which is null: set it, or leave {key} out"]
        if self.release is not Released.best:
            return [
                f"{key} ends a run after its best step, and evaluation.release is last: set evaluation.release=best"
            ]
        return []

    def unmet(self, absent: Mapping[Need, str]) -> list[str]:
        """A sentence for each wanted metric and each need of it that is ``absent``: need -> predicate with the fix.

        The one check of needs: whoever knows facts of the config, the dataset or the model says what is absent.
        """
        return [
            f"evaluation metric {metric} {absent[need]}"
            for metric in self.metrics
            for need in metric.needs
            if need in absent
        ]

    def too_small(self, sizes: Mapping[str, int]) -> list[str]:
        """A sentence for each split of ``sizes`` (name -> samples in it) of which the metrics need more samples."""
        found = []
        for split, least in self.least_samples.items():
            size = min(sizes.get(split, least), self.max_samples)
            if size < least:
                found.append(
                    f"the evaluation needs at least {least} samples of {split} and can use {size}: take a larger split,"
                    " raise evaluation.max_samples, lower evaluation.knn.k, or leave metrics out"
                )
        return found
