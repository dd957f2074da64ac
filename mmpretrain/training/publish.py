"""From a finished run to its release folder: what the run knows, put into the card."""

from __future__ import annotations

import logging
import os
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from mmpretrain.config.data import DataConfig
from mmpretrain.config.root import Config
from mmpretrain.data.info import DatasetInfo, dataset_info
from mmpretrain.hub.adapters import EncoderAdapter
from mmpretrain.hub.card import CardFacts, TrainingFacts
from mmpretrain.hub.card_parameters import used_parameters
from mmpretrain.hub.export import export_release
from mmpretrain.hub.native import native_note
from mmpretrain.methods.base import Shipped
from mmpretrain.records import Change, sizes_in_words
from mmpretrain.run_folder import RunFolder, read_lines
from mmpretrain.training.start_sources import Start

logger = logging.getLogger(__name__)

# Of a model that no rank holds whole: how many numbers of it rank 0 may open to check another format, and what a file
# of weights holds at most, which safetensors puts together in memory.
OPENED, SHARD = 2**24, "256MB"


@dataclass(frozen=True)
class Scores:
    """An evaluation of the very weights that are released. not_held_out: why it is of no held-out data; None if it
    is. changes: what became of the scores since the start, where that was measured."""

    results: Mapping[str, float]
    split: str
    not_held_out: str | None = None
    changes: Sequence[Change] = ()


def publish(
    folder: RunFolder,
    config: Config,
    shipped: Shipped,
    scores: Scores,
    training: TrainingFacts,
    adapters: Sequence[EncoderAdapter] = (),
) -> None:
    """Write ``folder.release``. adapters: of LoRA, which are merged in ``shipped``."""
    card = card_facts(config, dataset_info(config.data), training, scores)
    whole = (shipped.model, shipped.state, shipped.processor, folder.release, card)
    divided = config.engine.zero == 3
    native = not divided or sum(tensor.numel() for tensor in shipped.state.values()) <= OPENED
    notes = export_release(*whole, SHARD if divided else "5GB", native, adapters)
    if not native and native_note(shipped.model.config):
        notes.append(
            "its model is divided among the ranks (engine.zero=3), and formats of others take all of it in one process:"
            f" `mmpretrain export {folder.path} --to FOLDER` writes them"
        )
    for note in notes:
        logger.info("the release is not written in every format: %s", note)


def card_facts(config: Config, info: DatasetInfo | None, training: TrainingFacts, scores: Scores) -> CardFacts:
    """What the card of a run's release says. info: of the data."""
    return CardFacts(
        name=str(config.run.name),
        method=config.method.name,
        dataset=info or _undescribed(config.data),
        hyperparameters=used_parameters(config),
        license=config.run.license,
        training=training,
        evaluation=scores.results,
        split=scores.split,
        not_held_out=scores.not_held_out,
        changes=scores.changes,
        recipe=config.finetune.recipe,
    )


def _undescribed(data: DataConfig) -> DatasetInfo:
    """What the config alone says of shards that no builder of this project described."""
    modalities = {name: {"kind": modality.kind.value} for name, modality in data.modalities.items()}
    return DatasetInfo(data.name, title=data.name, source="not recorded", license="not recorded", modalities=modalities)


def training_facts(
    folder: RunFolder,
    config: Config,
    steps: int,
    world_size: int,
    hardware: str | None,
    weights: str | None = None,
    sizes: Sequence[Mapping[str, Any]] = (),
) -> TrainingFacts:
    """How the weights after ``steps`` steps came about. weights: which of that step they are, in words. sizes: with
    which ranks the steps were made, as the run's manifests have them."""
    lines = [line for line in read_lines(folder.metrics) if line["step"] <= steps and "samples_per_s" in line]
    rates = [line["samples_per_s"] for line in lines]
    sizes = [size for size in sizes if size["step"] < steps]
    return TrainingFacts(
        samples=steps * config.data.global_batch,
        steps=steps,
        world_size=world_size,
        samples_per_s=statistics.median(rates) if rates else None,
        hardware=hardware,
        started_from=_started_from(folder),
        weights=weights,
        sizes=sizes_in_words(sizes),
        summed_hours=_hours(sizes, steps, config.data.global_batch, lines),
    )


def _hours(
    sizes: Sequence[Mapping[str, Any]], steps: int, batch: int, lines: Sequence[Mapping[str, Any]]
) -> float | None:
    """Of all processes together, by the usual speed at each size; None if one of them has none."""
    seconds, ends = 0.0, [*(size["step"] for size in sizes[1:]), steps]
    for size, end in zip(sizes, ends, strict=False):
        rates = [line["samples_per_s"] for line in lines if size["step"] < line["step"] <= end]
        if not rates:
            return None
        seconds += (end - size["step"]) * batch / statistics.median(rates) * size["ranks"]
    return seconds / 3600 if sizes else None


def _started_from(folder: RunFolder) -> str | None:
    """What the run's first start noted."""
    found = folder.status().get("started_from")
    return str(Start(**found)) if found else None


def device_name() -> str:
    """What one rank of this process runs on, in words."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return f"CPU process on a machine with {os.cpu_count()} cores"
