"""A look at a model before anything is embedded: which of its towers take what, how wide its embeddings are."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch

from mmpretrain.assembly.class_names import Answers, answers_to
from mmpretrain.comparison.job import EvaluateJob
from mmpretrain.comparison.mapping import map_modalities
from mmpretrain.comparison.opened_data import OpenedData
from mmpretrain.comparison.space_model import SpaceModel
from mmpretrain.config.data import DataConfig, LabelForm
from mmpretrain.config.kind import Kind
from mmpretrain.data.stream import Stream
from mmpretrain.embedding.choice import ANY_CLASS, reading
from mmpretrain.embedding.encode import SampleEncoder
from mmpretrain.embedding.jobs import EmbedJob, VectorPrecision
from mmpretrain.embedding.space import Space
from mmpretrain.embedding.spaces import open_space


@dataclass(frozen=True)
class Looked:
    """What is known of a model before anything is embedded.

    source: what was opened. offered: names of all its towers. towers, kinds, widths: of each modality of the data that
    it embeds. answers: how those of its classifier fit the data's classes, None without one that gets all it needs.
    choices: what else decides about its embeddings. readings: split -> how the stream reads its modalities.
    """

    name: str
    source: str
    sha256: str
    offered: list[str]
    towers: dict[str, str]
    kinds: dict[str, Kind]
    widths: dict[str, int]
    answers: Answers | None
    choices: dict[str, str]
    readings: dict[str, DataConfig]

    @property
    def facts(self) -> dict[str, Any]:
        """What the result says of it."""
        shown = ("name", "source", "sha256", "towers", "widths", "choices")
        return {key: getattr(self, key) for key in shown}


def look(job: EvaluateJob, data: OpenedData, name: str, device: torch.device) -> Looked:
    """Open a model of the job, and encode a sample of each modality.

    Raises UnusableError, ShardError, or ValueError for embeddings that are not finite.
    """
    space = opened(job, name, device)
    towers = map_modalities(space, data.test, job.towers, job.pair, data.described)
    readings = {split: _reading(job, space, towers, split, data) for split in data.splits}
    encoder = SampleEncoder(space, towers, VectorPrecision.float32)
    widths = encoder.widths(Stream(readings[job.split], job.split, 0, 0, 1, encoder.tensors))
    model = SpaceModel(space, towers, incomplete(readings[job.split]), widths)
    answers = answers_to(model.model.config, job.classes, data.named) if model.has_logits else None
    kinds = {modality: space.towers[tower].kind for modality, tower in towers.items()}
    source = job.models[name]
    return Looked(
        name, source, space.sha256, list(space.towers), towers, kinds, widths, answers, space.choices, readings
    )


def opened(job: EvaluateJob, name: str, device: torch.device) -> Space:
    """A model of the job, under its name in the table."""
    space = open_space(job.models[name], device, job.pool)
    space.name = name
    return space


def incomplete(config: DataConfig) -> list[str]:
    """The modalities that some samples lack."""
    return [name for name, modality in config.modalities.items() if modality.optional]


def _reading(job: EvaluateJob, space: Space, towers: dict[str, str], split: str, data: OpenedData) -> DataConfig:
    asked = EmbedJob(out="", release=space.name, data=job.data, split=split, batch=job.batch, workers=job.workers)
    found = reading(asked, space, data.splits[split], towers)
    if not data.labeled:
        return replace(found, classes=None)
    classes = {LabelForm.value: None, LabelForm.several: len(data.classes or [])}.get(data.label.form, ANY_CLASS)
    return replace(found, classes=classes, label=data.label)
