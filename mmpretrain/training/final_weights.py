"""What a run ends with: the best step or the last one, of it the average or the weights, of them a mixture.

The order: first the step (``evaluation.release``; its checkpoint holds its own average), then the average if that is
released (``averaging.release``), then the mixture of it with the start (``averaging.interpolate``). What the method
sets after the last step, the evaluation and the release come after all of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmpretrain.config.averaging import AveragingConfig, Weights
from mmpretrain.distributed.world import World
from mmpretrain.engine.engine import Engine
from mmpretrain.methods.base import Method
from mmpretrain.run_folder import RunFolder
from mmpretrain.training.best import agreed_score
from mmpretrain.training.interpolation import Mixed, Mixtures, interpolated
from mmpretrain.training.measuring import Measuring
from mmpretrain.training.start_weights import StartWeights, write_start


def keep_start(folder: RunFolder, settings: AveragingConfig, method: Method, world: World, *, first: bool) -> None:
    """Have the weights that the run started from in its folder, if they will be needed; a collective.

    first: whether this is its first start, where they are written, before DeepSpeed has the model; otherwise they are
    looked at: CheckpointError is raised, on every rank, if they are damaged.
    """
    if not settings.interpolate:
        return
    if first:
        write_start(folder.start_weights, method.model, method.heads, writes=world.rank == 0)
    world.barrier()
    if not first:
        StartWeights(folder.start_weights, world)


def take_final_weights(folder: RunFolder, engine: Engine, measuring: Measuring) -> Mixed | None:
    """Put the average and the mixture that are to be released into the engine, which holds the step already; a
    collective. What was measured of mixtures, None if there are none."""
    settings = engine.config.averaging
    if engine.average and settings.released is Weights.ema:
        engine.average.take()
    if not settings.interpolate:
        return None
    best, world = engine.config.evaluation.best, engine.world
    mixtures = Mixtures(engine, StartWeights(folder.start_weights, world))
    mixed = interpolated(mixtures, settings.interpolate, best, lambda: agreed_score(best, measuring.deciding(), world))
    if world.rank == 0:
        folder.update_status(interpolation=mixed.facts())
    return mixed


def in_words(settings: AveragingConfig, kind: Weights, mixture: Mapping[str, Any] | None) -> str | None:
    """Which weights of a step are meant, for a card; None if there is nothing to say.

    mixture: the facts of the one that they are, as the run's status has them, or its share alone (``alpha``).
    """
    whole = None
    if kind is Weights.ema:
        warmup = ", with warm-up" if settings.warmup else ""
        whole = f"the exponential moving average of the training's (decay {settings.ema:g}{warmup})"
    if mixture is None:
        return whole
    alpha = mixture["alpha"]
    said = f"{alpha:g} of {whole or 'what was trained'} and {1 - alpha:g} of the start of the run"
    if "scores" not in mixture:
        return said
    count, score, split = len(mixture["scores"]), mixture["score"], mixture["split"]
    return f"{said}, chosen among {count} mixtures by {score} on the {split} split"
