"""From a finished run to its release folder: what the run knows, put into the card."""

from __future__ import annotations

import logging
import os
import statistics
from collections.abc import Mapping

import torch

from mmpretrain.config.data import DataConfig
from mmpretrain.config.root import Config
from mmpretrain.data.info import DatasetInfo, dataset_info
from mmpretrain.hub.card import CardFacts, TrainingFacts
from mmpretrain.hub.card_parameters import used_parameters
from mmpretrain.hub.export import export_release
from mmpretrain.methods.base import Shipped
from mmpretrain.run_folder import RunFolder, read_lines

logger = logging.getLogger(__name__)


def publish(
    folder: RunFolder,
    config: Config,
    shipped: Shipped,
    results: Mapping[str, float],
    world_size: int,
    steps: int,
    not_held_out: str | None = None,
) -> None:
    """Write ``folder.release``. results: the final evaluation. steps: that the weights have learned from. not_held_out:
    why the evaluation is of no held-out data; None if it is."""
    card = CardFacts(
        name=str(config.run.name),
        method=config.method.name,
        dataset=dataset_info(config.data) or _undescribed(config.data),
        hyperparameters=used_parameters(config),
        license=config.run.license,
        training=_training_facts(folder, config, world_size, steps),
        evaluation=results,
        split=config.evaluation.split,
        not_held_out=not_held_out,
    )
    for note in export_release(shipped.model, shipped.state, shipped.processor, folder.release, card):
        logger.info("the release is not written in every format: %s", note)


def _undescribed(data: DataConfig) -> DatasetInfo:
    """What the config alone says of shards that no builder of this project described."""
    modalities = {name: {"kind": modality.kind.value} for name, modality in data.modalities.items()}
    return DatasetInfo(data.name, title=data.name, source="not recorded", license="not recorded", modalities=modalities)


def _training_facts(folder: RunFolder, config: Config, world_size: int, steps: int) -> TrainingFacts:
    rates = [line["samples_per_s"] for line in read_lines(folder.metrics) if "samples_per_s" in line]
    return TrainingFacts(
        samples=steps * config.data.global_batch,
        steps=steps,
        world_size=world_size,
        samples_per_s=statistics.median(rates) if rates else None,
        hardware=f"{world_size} x {_device()}",
    )


def _device() -> str:
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return f"CPU process on a machine with {os.cpu_count()} cores"
