"""A batch of the shapes that a run's batches have, without its data, its tokenizer or its processor."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import fields, is_dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mmpretrain.assembly.sources import EncoderSources
from mmpretrain.config.data import Kind, ModalityConfig
from mmpretrain.config.root import Config
from mmpretrain.config.sources import LabelForm
from mmpretrain.data.augment import Augmenter
from mmpretrain.data.batch import NEGATIVES, PRESENT, SOURCE, Batch, Inputs
from mmpretrain.data.step import Step
from mmpretrain.methods import method_class
from mmpretrain.methods.base import Method
from mmpretrain.models.audio_mmpretrain import audio_tensors
from mmpretrain.models.modeling_mmpretrain import MMPretrainModel

Tensors = dict[str, Tensor]


class SameShapes(Augmenter):
    """Stands in for a run's augmenter: augmented inputs have the encoders' sizes, as the plain ones have."""

    def __init__(self) -> None:
        """Nothing is needed."""

    def view(self, batch: Batch, name: str, step: Step, unique: Collection[str] = ()) -> Inputs:
        """Copies of the plain inputs."""
        return {modality: {key: t.clone() for key, t in tensors.items()} for modality, tensors in batch.inputs.items()}

    def training_inputs(self, batch: Batch, step: Step) -> Batch:
        """The same batch."""
        return batch


def made_up_method(config: Config, model: MMPretrainModel) -> Method:
    """The method with heads on the CPU, around ``model``, which may be anywhere; it prepares made-up batches."""
    with torch.random.fork_rng(devices=[]):
        return method_class(config.method.name)(config, model, SameShapes())


def made_up_batch(config: Config, sources: EncoderSources, rows: int) -> Batch:
    """``rows`` different samples, none of which lacks anything; texts and sequences of full length.

    Raises UnusableError for a feature extractor that does not open.
    """
    ids = torch.arange(rows)
    modalities = config.data.modalities
    inputs = {name: _tensors(name, modality, sources, rows) for name, modality in modalities.items()}
    for name, modality in modalities.items():
        if modality.optional:
            inputs[name][PRESENT] = torch.ones(rows, dtype=torch.bool)
    views: dict[str, Inputs] = {}
    if config.data.hard_negatives:
        views[NEGATIVES] = {
            name: {key: _repeated(tensor, entry.count) for key, tensor in inputs[name].items() if key != PRESENT}
            | {PRESENT: torch.ones(rows, entry.count, dtype=torch.bool)}
            for name, entry in config.data.hard_negatives.items()
        }
    if config.method.augments or any(modality.train for modality in modalities.values()):
        views |= {SOURCE: source} if (source := _sources(modalities, rows)) else {}
    return Batch(inputs, _labels(config, rows), ids, ids, tuple(map(str, ids.tolist())), views=views)


def with_rows(batch: Any, rows: int) -> Any:
    """The same nest of tensors [b, ...] with ``rows`` rows each, of no particular content."""
    if isinstance(batch, Tensor):
        return torch.empty((rows, *batch.shape[1:]), dtype=batch.dtype)
    if isinstance(batch, dict):
        return {key: with_rows(value, rows) for key, value in batch.items()}
    if is_dataclass(batch) and not isinstance(batch, type):
        changed = {field.name: with_rows(getattr(batch, field.name), rows) for field in fields(batch)}
        return replace(batch, **changed)
    return () if isinstance(batch, tuple) else batch


def _tensors(name: str, modality: ModalityConfig, sources: EncoderSources, rows: int) -> Tensors:
    kind, size = modality.kind, tuple(modality.size or ())
    if kind is Kind.image:
        return {"pixel_values": torch.zeros(rows, modality.channels, *size)}
    if kind is Kind.text:
        mask = torch.ones(rows, modality.max_length, dtype=torch.int64)
        return {"input_ids": mask.clone(), "attention_mask": mask}
    if kind is Kind.vector:
        return {"values": torch.zeros(rows, *size)}
    if kind is Kind.sequence:
        return {"values": torch.zeros(rows, *size), "attention_mask": torch.ones(rows, size[0], dtype=torch.int64)}
    entry = sources[name].sound_form._asdict()  # type: ignore[union-attr]
    silence = {"array": np.zeros(1, np.float32), "sampling_rate": entry["sampling_rate"]}
    tensors = audio_tensors(name, [silence, silence], entry, sources[name].feature_extractor)
    return {key: _repeated(tensor[:1], rows)[0] for key, tensor in tensors.items()}


def _sources(modalities: dict[str, ModalityConfig], rows: int) -> Inputs:
    """What augmentations start from, where that is not the inputs."""
    found: Inputs = {}
    for name, modality in modalities.items():
        if modality.load_size is not None:
            found[name] = {"pixel_values": torch.zeros(rows, modality.channels, *modality.load_size)}
    return found


def _repeated(tensor: Tensor, count: int) -> Tensor:
    """[b, ...] -> [b, count, ...]."""
    return tensor[:, None].expand(-1, count, *tensor.shape[1:]).contiguous()


def _labels(config: Config, rows: int) -> Tensor | None:
    if not config.data.labeled:
        return None
    form, classes = config.data.label.form, config.data.classes or 1
    if form is LabelForm.value:
        values = torch.arange(rows, dtype=torch.float32)
        numbers = config.data.label.numbers
        return values if numbers == 1 else values[:, None].repeat(1, numbers)
    labels = torch.arange(rows) % classes
    return labels if form is LabelForm.one_class else torch.nn.functional.one_hot(labels, classes)
