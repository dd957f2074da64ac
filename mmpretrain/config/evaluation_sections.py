"""Settings of single metrics, and of keeping the best checkpoint (no torch here)."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

LEAST_TEMPERATURE = 1e-4  # of kNN: below, the weights of all neighbors but the nearest are 0 in float64
LOWER_IS_BETTER = ("median_rank", "mae", "mse")  # of scores, by the last part of their names; all others: higher


def score_metric(score: str) -> str:
    """The metric of a score's whole name."""
    return score.partition("/")[0]


@dataclass
class KnnConfig:
    """The metric knn."""

    k: int = 20
    """Neighbors that vote."""

    temperature: float = 0.07
    """Each votes with weight exp(cosine similarity / temperature)."""

    def problems(self) -> list[str]:
        """What is wrong with this section, one sentence each."""
        found = [] if self.k >= 1 else [f"evaluation.knn.k is {self.k}: it must be at least 1"]
        if self.temperature <= 0:
            found.append(f"evaluation.knn.temperature is {self.temperature}: it must be above 0")
        elif self.temperature < LEAST_TEMPERATURE:
            least = f"it must be at least {LEAST_TEMPERATURE:g}"
            found.append(f"evaluation.knn.temperature is {self.temperature}: {least}")
        return found


class ChosenBy(StrEnum):
    """What a probe's strengths are compared by, where labels are one class."""

    accuracy = "accuracy"
    """The share of samples that are right."""

    balanced_accuracy = "balanced_accuracy"
    """The mean of this share over the classes (CoMM's probe)."""


@dataclass
class LinearProbeConfig:
    """The metric linear_probe, and what robustness fits."""

    strength: float = 1.0
    """How much the training samples count beside the penalty on the weights: C of the logistic regression, 1 / alpha of
    the ridge regression."""

    candidates: list[float] = field(default_factory=list)
    """Strengths to choose among, by cross-validation within ``evaluation.probe_split``; empty: ``strength`` it is."""

    folds: int = 5
    """Parts of that cross-validation."""

    chosen_by: ChosenBy = ChosenBy.accuracy
    """What the candidates are compared by, where labels are one class."""

    def problems(self) -> list[str]:
        """What is wrong with this section, one sentence each."""
        found = []
        for key, values in (("strength", [self.strength]), ("candidates", self.candidates)):
            if any(value <= 0 for value in values):
                found.append(f"evaluation.linear_probe.{key} has {min(values)}: a strength must be above 0")
        least = 2
        if self.folds < least:
            found.append(f"evaluation.linear_probe.folds is {self.folds}: it must be at least {least}")
        if self.chosen_by is not ChosenBy.accuracy and not self.candidates:
            key = f"evaluation.linear_probe.chosen_by is {self.chosen_by}"
            found.append(f"{key}, and there are no evaluation.linear_probe.candidates to choose among: name some")
        return found


class Search(StrEnum):
    """When factors are also read by a probe whose strength is searched: that of CoMM's released notebook."""

    never = "never"
    """Only strength 1."""

    final = "final"
    """After training, too."""

    always = "always"
    """After and while training, too."""


@dataclass
class FactorsConfig:
    """The metric factors."""

    search: Search = Search.never
    """When a second probe stands beside that of strength 1: the one of CoMM's released notebook, whose strength
    cross-validation within ``evaluation.probe_split`` chooses by balanced accuracy. It takes many times as long."""

    @property
    def while_training(self) -> FactorsConfig:
        """The settings of evaluations while training."""
        return self if self.search is Search.always else FactorsConfig()


class Captions(StrEnum):
    """Which texts of a sample are items of retrieval."""

    first = "first"
    """The first one alone."""

    all = "all"
    """Each one is an item of its own: of a picture any of its captions is right, of a caption its picture."""


@dataclass
class RetrievalConfig:
    """The metric retrieval."""

    captions: Captions = Captions.first
    """Which texts count, where samples have several."""

    same: list[str] = field(default_factory=list)
    """Modalities of which samples with equal bytes are one item, as where a picture was written once per caption."""


@dataclass
class ZeroShotConfig:
    """The metric zero_shot."""

    classes: list[str] = field(default_factory=list)
    """Names of the classes, in the order of their numbers; empty: those of ``dataset.json``."""

    templates: list[str] = field(default_factory=lambda: ["{}"])
    """Texts around a name, each with ``{}`` in its place, as ``a photo of a {}.``; a class is the mean of all."""

    def problems(self) -> list[str]:
        """What is wrong with this section, one sentence each."""
        found = [
            f"evaluation.zero_shot.templates: {template!r} must have {{}} once, where the name stands"
            for template in self.templates
            if template.count("{}") != 1
        ]
        if not self.templates:
            found.append("evaluation.zero_shot.templates is empty: give at least one, as '{}'")
        twice = sorted({name for name in self.classes if self.classes.count(name) > 1})
        return found + [f"evaluation.zero_shot.classes names {name!r} twice" for name in twice[:1]]


class Released(StrEnum):
    """Which weights a run ends with."""

    last = "last"
    """Those after the last step."""

    best = "best"
    """Those of the checkpoint with the best ``evaluation.best.score``."""


@dataclass
class BestConfig:
    """Keeping the checkpoint that does best on a split of its own."""

    score: str | None = None
    """The score that decides, by its whole name, as ``retrieval/image->caption/recall@1``; it is measured every
    ``evaluation.every_steps`` steps and after the last one. null: none does."""

    split: str = "validation"
    """Folder of shards under ``data.path`` that it is measured on, and ``evaluation.during`` with it: while training,
    ``evaluation.split`` is not touched then."""

    patience: int | None = None
    """So many measurements in a row without a better score end the run, which is then complete. Needs
    ``evaluation.release=best``. null: it goes on to its last step."""

    @property
    def lower(self) -> bool:
        """Whether smaller is better."""
        return bool(self.score) and str(self.score).rpartition("/")[2] in LOWER_IS_BETTER
