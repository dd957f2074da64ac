"""The whole config tree (no torch here). Each section's dataclass stands in a file of this folder."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

from mmpretrain.config.architectures import encoders_of
from mmpretrain.config.averaging import AveragingConfig
from mmpretrain.config.data import DataConfig
from mmpretrain.config.engine import CheckpointConfig, EngineConfig, OptimConfig, OptimizerName, TrainConfig
from mmpretrain.config.evaluation import Captions, EvaluationConfig, Need
from mmpretrain.config.finetune import FinetuneConfig
from mmpretrain.config.health import HealthConfig
from mmpretrain.config.keys import FREE, PATH
from mmpretrain.config.methods.base import MethodConfig, ModelParts
from mmpretrain.config.model import FusionForm, ModelConfig
from mmpretrain.config.objective import ObjectiveConfig
from mmpretrain.config.score_names import unknown_score
from mmpretrain.config.sources import LabelForm
from mmpretrain.config.tracking import TrackingConfig


@dataclass
class RunConfig:
    """Where a run is written."""

    name: str | None = None
    """Folder of the run below ``run.root``: letters, digits, ``.``, ``_`` and ``-``. The same name with the same config
    continues the run. null: ``METHOD-EXPERIMENT``, or ``METHOD-DATA`` without an experiment."""

    root: str = field(default="runs", metadata=PATH | FREE)
    """Folder that the run folders lie in; a relative path starts where the launcher is called."""

    license: str | None = field(default=None, metadata=FREE)
    """License of the weights, as the Hub spells it (``mit``, ``cc-by-4.0``), for the model card; null: not chosen yet.
    A run may go on under another one."""

    def problems(self) -> list[str]:
        """What is wrong with this section, one sentence each."""
        problem = None if self.license is None else license_problem(self.license)
        return [f"run.license: {problem}"] if problem else []


def license_problem(license: str) -> str | None:
    """A sentence if this is no license as the Hub spells them."""
    if re.fullmatch("[a-z0-9][a-z0-9.-]*", license):
        return None
    return f"{license!r} is no license as the Hub spells them: lower case, such as mit, apache-2.0 or cc-by-4.0"


@dataclass
class Config:
    """Everything that determines a run, apart from the machines it runs on."""

    method: MethodConfig = field(default_factory=MethodConfig)
    """What is learned: the method and its settings."""

    data: DataConfig = field(default_factory=DataConfig)
    """Where the shards are and how they are streamed."""

    model: ModelConfig = field(default_factory=ModelConfig)
    """Encoders by modality, and what sits on top of them."""

    optim: OptimConfig = field(default_factory=OptimConfig)
    """Optimizer and learning rate."""

    engine: EngineConfig = field(default_factory=EngineConfig)
    """What DeepSpeed does, and how encoders compute."""

    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    """How losses over all ranks are computed."""

    train: TrainConfig = field(default_factory=TrainConfig)
    """How long training lasts."""

    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    """When the state of training is saved, and what is kept of it."""

    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    """What is measured, when, and on which samples."""

    run: RunConfig = field(default_factory=RunConfig)
    """Where a run is written."""

    experiment: str | None = field(default=None, metadata=FREE)
    """The experiment that was chosen by ``experiment=NAME``, part of the default name of the run; null: none."""

    seed: int = 0
    """Seed of everything random: initial weights, order of samples, augmentations, dropout. From 0 to below 2^63."""

    finetune: FinetuneConfig = field(default_factory=FinetuneConfig)
    """What fine-tuning adds to a run."""

    init_from: str | None = field(default=None, metadata=PATH)
    """What the run starts from: a release (a folder, or an id of the Hub), or a run (``runs/NAME``: the step that it
    released, else its newest checkpoint; ``runs/NAME@STEP``: that one). All parts that both models have are taken over,
    and the plan lists them (docs/resuming.md). null: encoders start as ``model.encoders`` says, all else anew."""

    averaging: AveragingConfig = field(default_factory=AveragingConfig)
    """Averages of the weights, and interpolation with the weights that the run started from."""

    tracking: TrackingConfig = field(default_factory=TrackingConfig, metadata=FREE)
    """Where records go besides the run folder's own files."""

    health: HealthConfig = field(default_factory=HealthConfig, metadata=FREE)
    """What nodes and devices must show before the model is built."""

    @property
    def total_steps(self) -> int:
        """Optimizer steps of the run: the sample budget in full global batches, rounded up."""
        return math.ceil(self.train.samples / self.data.global_batch)

    @property
    def parts(self) -> ModelParts:
        """What the run's model consists of."""
        return self.method.model_parts(self.model, self.data)

    @property
    def fuses_tokens(self) -> bool:
        """Whether the model has a fusion that looks at encoders' states before they are pooled."""
        fusion = self.parts.fusion
        return fusion is not None and fusion["form"] == FusionForm.transformer.value

    def problems(self) -> list[str]:
        """Everything that is wrong inside and between the sections, one sentence each."""
        sections = (self.method, self.data, self.model, self.optim, self.engine, self.objective, self.train)
        others = (self.checkpoint, self.evaluation, self.run, self.tracking, self.health)
        found = [p for section in (*sections, *others) for p in section.problems()]
        found += self.averaging.problems()
        found += self.averaging.problems_against(self.evaluation.best.score, self.engine.deepspeed)
        found += [f"{key} is {value}: a finite number is needed" for key, value in _not_finite(asdict(self))]
        found += self.optim.problems_against(self.evaluation.best.score)
        found += self.method.data_problems(self.data)
        found += self.finetune.problems(self.model.encoders if self.parts.encoders else {}, self.model.lora)
        found += self.method.objective_problems(self.objective, self.data)
        found += ["init_from is empty: name a release or a run, or null for none"] if self.init_from == "" else []
        found += self.engine.muon_problems() if self.optim.name is OptimizerName.muon else []
        return found + self._model_against_data() + self._labels() + self._unmet_needs() + self._run_name()

    def _model_against_data(self) -> list[str]:
        if not self.parts.encoders:
            return self._model_against_method()
        found = []
        missing = sorted(set(self.data.modalities) - set(self.model.encoders))
        extra = sorted(set(self.model.encoders) - set(self.data.modalities))
        if missing or extra:
            found.append(
                f"model.encoders has {sorted(self.model.encoders)} but data.modalities has"
                f" {sorted(self.data.modalities)}: choose a matching pair with model=... and data=..."
            )
        for name, encoder in self.model.encoders.items():
            modality = self.data.modalities.get(name)
            if modality is None:
                continue
            if modality.kind.row.tokenized and not (encoder.tokenizer or encoder.pretrained):
                found.append(f"model.encoders.{name}.tokenizer is missing: a text encoder needs one")
            if encoder.feature_extractor and not modality.kind.row.extracted:
                found.append(
                    f"model.encoders.{name}.feature_extractor is for sounds, and data.modalities.{name} is"
                    f" a {modality.kind.value}: leave it out"
                )
            given = "architecture" if encoder.architecture else "pretrained"
            if modality.kind not in encoder.kinds and getattr(encoder, given):
                found.append(
                    f"model.encoders.{name}.{given} is {getattr(encoder, given)} but data.modalities.{name} is"
                    f" a {modality.kind.value}: use {encoders_of(modality.kind)}"
                )
        return found + self._model_against_method()

    def _model_against_method(self) -> list[str]:
        found = self.method.model_problems(self.model, self.data)
        if self.model.classifier_dropout and (not self.parts.classifier or self.parts.fused_classifier):
            found.append(
                f"model.classifier_dropout has no effect with method={self.method.name}, which has no classification"
                " head with a hidden layer: leave it out"
            )
        if not self.fuses_tokens:
            return found
        return found + [
            f"model.encoders.{name}.pool has no effect with method={self.method.name}, which fuses tokens: leave it out"
            for name, encoder in self.model.encoders.items()
            if encoder.pool is not None
        ]

    def _labels(self) -> list[str]:
        if self.data.classes is None or self.data.classes >= 2:
            return []
        return [f"data.classes is {self.data.classes}: at least 2 are needed, or null for unlabeled data"]

    def _unmet_needs(self) -> list[str]:
        """What the evaluation needs and data and method of this config do not give."""
        absent = {}
        if not self.data.labeled:
            absent[Need.labels] = "needs labels, but data.classes is null"
        if self.data.label.form is not LabelForm.one_class:
            absent[Need.one_class] = (
                f"needs one class per sample, but data.label.form is {self.data.label.form}; choose linear_probe"
            )
        if not any(modality.kind.row.tokenized for modality in self.data.modalities.values()):
            absent[Need.texts] = "needs a modality that is a text; leave the metric out"
        if not self.parts.classifier:
            absent[Need.logits] = (
                f"needs logits, which method={self.method.name} does not learn; choose linear_probe and retrieval"
            )
        return self.evaluation.unmet(absent) + self._evaluation_against_data()

    def _evaluation_against_data(self) -> list[str]:
        """What settings of the evaluation name and the data do not have."""
        settings, modalities, found = self.evaluation, self.data.modalities, []
        names = settings.zero_shot.classes
        if names and self.data.classes not in (None, len(names)):
            found.append(
                f"evaluation.zero_shot.classes has {len(names)} names and data.classes is {self.data.classes}: give one"
                " for each class"
            )
        unknown = [name for name in settings.retrieval.same if name not in modalities]
        if unknown:
            found.append(
                f"evaluation.retrieval.same: data.modalities has no {unknown[0]!r}, only {', '.join(modalities)}"
            )
        several = settings.retrieval.captions is Captions.all
        if several and not any(modality.kind.row.listed for modality in modalities.values()):
            found.append("evaluation.retrieval.captions is all, and no modality is a text: leave it out")
        if settings.best.score and (problem := unknown_score(settings.best.score, modalities)):
            found.append(f"evaluation.best.score is {settings.best.score!r}, and {problem}")
        return found

    def _run_name(self) -> list[str]:
        if not 0 <= self.seed < 2**63:
            return [f"seed is {self.seed}: it must lie between 0 and 2^63"]
        if self.run.name is not None and not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", self.run.name):
            return [f"run.name is {self.run.name!r}: use letters, digits, '.', '_' and '-'"]
        return []


def _not_finite(tree: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from _not_finite(value, f"{prefix}{key}.")
        elif isinstance(value, float) and not math.isfinite(value):
            yield f"{prefix}{key}", value
