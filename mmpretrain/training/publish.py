"""From a finished run to its release folder: what the run knows, put into the card."""

from __future__ import annotations

import os
import statistics
from collections.abc import Mapping

import torch
from omegaconf import OmegaConf

from mmpretrain.config.data import DataConfig
from mmpretrain.config.root import Config
from mmpretrain.data.info import DatasetInfo, dataset_info
from mmpretrain.hub.card import CardFacts, TrainingFacts
from mmpretrain.hub.export import export_release
from mmpretrain.methods.base import Shipped
from mmpretrain.run_folder import RunFolder, read_lines


def publish(
    folder: RunFolder,
    config: Config,
    shipped: Shipped,
    results: Mapping[str, float],
    world_size: int,
) -> None:
    """Write ``folder.release``. results: the final evaluation."""
    hardware = f"{world_size} x {device_name()}"
    made = training_facts(folder, config, config.total_steps, world_size, hardware)
    card = card_facts(config, dataset_info(config.data), made, results)
    export_release(shipped.model, shipped.state, shipped.processor, folder.release, card)


def card_facts(
    config: Config, info: DatasetInfo | None, training: TrainingFacts, results: Mapping[str, float]
) -> CardFacts:
    """What the card of a run's release says. info: of the data; results: of an evaluation of these very weights."""
    return CardFacts(
        name=str(config.run.name),
        method=config.method.name,
        dataset=info or _undescribed(config.data),
        hyperparameters=OmegaConf.to_container(OmegaConf.structured(config), enum_to_str=True),  # type: ignore[arg-type]
        training=training,
        evaluation=results,
        split=config.evaluation.split,
    )


def _undescribed(data: DataConfig) -> DatasetInfo:
    """What the config alone says of shards that no builder of this project described."""
    modalities = {name: {"kind": modality.kind.value} for name, modality in data.modalities.items()}
    return DatasetInfo(data.name, title=data.name, source="not recorded", license="not recorded", modalities=modalities)


def training_facts(
    folder: RunFolder, config: Config, steps: int, world_size: int, hardware: str | None
) -> TrainingFacts:
    """How the weights after ``steps`` steps came about."""
    lines = (line for line in read_lines(folder.metrics) if line["step"] <= steps)
    rates = [line["samples_per_s"] for line in lines if "samples_per_s" in line]
    return TrainingFacts(
        samples=steps * config.data.global_batch,
        steps=steps,
        world_size=world_size,
        samples_per_s=statistics.median(rates) if rates else None,
        hardware=hardware,
    )


def device_name() -> str:
    """What one rank of this process runs on, in words."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return f"CPU process on a machine with {os.cpu_count()} cores"
