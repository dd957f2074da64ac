"""One rank's part in comparing models: each is opened, looked at, and later embeds the splits and is measured.

All are looked at before one embeds anything, so that what cannot be measured is said at once. One model at a time is in
memory.
"""

from __future__ import annotations

import functools
import logging
from dataclasses import asdict, replace
from typing import Any

from mmpretrain.comparison.embedding import Readings, SplitEmbedder, data_config, incomplete
from mmpretrain.comparison.job import EvaluateJob
from mmpretrain.comparison.mapping import data_order, map_modalities
from mmpretrain.comparison.needs import Looked, chosen_metrics
from mmpretrain.comparison.opened_data import OpenedData, open_data_set
from mmpretrain.comparison.space_model import SpaceModel
from mmpretrain.comparison.versions import versions
from mmpretrain.comparison.words import mapping_words
from mmpretrain.config.data import DataConfig
from mmpretrain.config.evaluation import EvaluationConfig, Metric
from mmpretrain.console import CommandError
from mmpretrain.data.stream import Stream
from mmpretrain.distributed.world import World
from mmpretrain.embedding.encode import SampleEncoder
from mmpretrain.embedding.jobs import VectorPrecision
from mmpretrain.embedding.space import Space
from mmpretrain.embedding.spaces import open_space
from mmpretrain.evaluation.evaluate import evaluate

Plan = tuple[list[Metric], dict[Metric, str]]  # metrics to measure, those that cannot be -> why

log = logging.getLogger(__name__)


def compare(job: EvaluateJob, world: World) -> dict[str, Any]:
    """Measure all models, together with all other ranks; the same arguments on all. The result is rank 0's.

    Raises:
        CommandError: a wanted metric cannot be measured of a model, or too many samples cannot be read.
        UnusableError: a model cannot be opened, or does not fit the data.
        ShardError: the data cannot be used.
    """
    data, settings = open_data_set(job), job.evaluation()
    looked: list[Looked] = []
    plans: dict[str, Plan] = {}
    readings: dict[str, dict[str, DataConfig]] = {}
    for name, source in job.models.items():
        space, towers = _opened(job, name, source, data, world)
        looked.append(_look(job, name, source, data, space, towers))
        readings[name] = {split: data_config(job, space, towers, split, index) for split, index in _splits(job, data)}
        plans[name] = chosen_metrics(looked[-1], data, job, settings)
        _say(looked[-1], plans[name][1], world)
        del space
    if problems := _unmet(job, plans):
        raise CommandError(problems)
    measured = [_measured(job, model, data, settings, plans[model.name], readings, world) for model in looked]
    return _document(job, data, settings, measured)


def _opened(job: EvaluateJob, name: str, source: str, data: OpenedData, world: World) -> tuple[Space, dict[str, str]]:
    space = open_space(source, world.device, job.pool)
    space.name = name
    order = data_order(data.test, data.described)
    return space, map_modalities(space, data.test, job.towers, job.pair, order)


def _look(job: EvaluateJob, name: str, source: str, data: OpenedData, space: Space, towers: dict[str, str]) -> Looked:
    encoder = SampleEncoder(space, towers, VectorPrecision.float32)
    config = data_config(job, space, towers, job.split, data.test)
    widths = encoder.widths(Stream(config, job.split, 0, 0, 1, encoder.tensors))
    kinds = {name: space.towers[tower].kind for name, tower in towers.items()}
    logits = SpaceModel(space, towers, incomplete(config), widths).has_logits
    return Looked(name, source, space.sha256, towers, kinds, widths, logits, space.choices)


def _unmet(job: EvaluateJob, plans: dict[str, Plan]) -> list[str]:
    """What keeps a metric that was asked for from being measured, of each model; and models without any metric."""
    if job.wanted:
        return [
            f"--metric {metric}: it cannot be measured of {name}: {why}"
            for name, (_, out) in plans.items()
            for metric, why in out.items()
        ]
    return [
        f"nothing can be measured of {name}: " + "; ".join(f"{metric}: {why}" for metric, why in out.items())
        for name, (metrics, out) in plans.items()
        if not metrics
    ]


def _measured(
    job: EvaluateJob,
    model: Looked,
    data: OpenedData,
    settings: EvaluationConfig,
    plan: Plan,
    readings: Readings,
    world: World,
) -> dict[str, Any]:
    """A model's entry in the result."""
    space = open_space(model.source, world.device, job.pool)
    metrics, left_out = plan
    embedder = SplitEmbedder(job, model, space, readings, world)
    embed = functools.cache(embedder.embed)
    results: dict[str, float] = {}
    for metric in metrics:
        for split in _splits_of(metric, settings):
            embed(split)  # what is wrong with embeddings concerns all metrics
        try:
            results |= evaluate([metric], embed, world, settings, data.classes, data.factors)
        except (ValueError, RuntimeError) as error:  # rank 0 says what is wrong; the others only that something is
            if job.wanted or (world.rank == 0 and not isinstance(error, ValueError)):
                raise
            left_out = {**left_out, metric: str(error)}
    entry = {key: value for key, value in asdict(model).items() if key != "kinds"}
    return {
        **entry,
        "samples": {split: len(embed(split)) for split in embedder.counted},
        "unreadable": embedder.counted,
        "results": results,
        "left_out": {str(metric): why for metric, why in left_out.items()},
    }


def _splits_of(metric: Metric, settings: EvaluationConfig) -> list[str]:
    return replace(settings, final=[metric], during=[]).splits


def _splits(job: EvaluateJob, data: OpenedData) -> list[tuple[str, Any]]:
    return [(job.split, data.test), *([(job.probe_split, data.probe)] if data.probe is not None else [])]


def _say(model: Looked, left_out: dict[Metric, str], world: World) -> None:
    if world.rank == 0:
        log.info("%s embeds %s", model.name, mapping_words(model.towers))
        for metric, why in left_out.items():
            log.info("%s: no %s: %s", model.name, metric, why)


def _document(
    job: EvaluateJob, data: OpenedData, settings: EvaluationConfig, models: list[dict[str, Any]]
) -> dict[str, Any]:
    return {
        "data": {
            "path": job.data,
            "name": data.info.name if data.info else None,
            "fingerprints": {split: index.fingerprint for split, index in _splits(job, data)},
            "labels": data.classes,
        },
        "split": job.split,
        "probe_split": job.probe_split,
        "settings": asdict(settings),
        "models": models,
        "versions": versions(),
    }
