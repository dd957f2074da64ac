"""The best step so far by a score on the validation split, and what the records say of it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch

from mmpretrain.config.evaluation import BestConfig
from mmpretrain.distributed.world import World


@dataclass(frozen=True)
class Best:
    """score: whole name. step: after so many. value: of the score there. split: that it was measured on."""

    score: str
    step: int
    value: float
    split: str

    def facts(self) -> dict[str, Any]:
        """For the manifest of a checkpoint and the status of a run; see :func:`known_best`."""
        return asdict(self)


def known_best(manifest: Mapping[str, Any] | None) -> Best | None:
    """What a checkpoint's manifest says; None where it says nothing."""
    return Best(**manifest["best"]) if manifest and manifest.get("best") else None


def better(
    best: Best | None, settings: BestConfig, step: int, results: Mapping[str, float], world: World
) -> Best | None:
    """The best after ``step``, the same on every rank: the earlier one unless ``step`` is better than it.

    results: of the evaluation, on rank 0. A collective. Raises ValueError as :func:`agreed_score` does.
    """
    if settings.score is None:
        return best
    value = agreed_score(settings, results, world)
    if best is not None and not beats(value, best.value, settings):
        return best
    return Best(settings.score, step, value, settings.split)


def agreed_score(settings: BestConfig, results: Mapping[str, float], world: World) -> float:
    """The score that decides, the same on every rank.

    results: of the evaluation, on rank 0. A collective. Raises ValueError, on all ranks, if they lack the score or it
    is not finite.
    """
    value = results.get(str(settings.score), math.nan) if world.rank == 0 else 0.0
    value = float(world.all_reduce_sum(torch.tensor([value], dtype=torch.float64, device=world.device)).item())
    if not math.isfinite(value):
        known = f", only {', '.join(results)}" if world.rank == 0 else ""
        raise ValueError(f"evaluation.best.score: the evaluation has no finite {settings.score!r}{known}")
    return value


def beats(value: float, other: float, settings: BestConfig) -> bool:
    """Whether a score is better than another one, and not its equal."""
    return value < other if settings.lower else value > other


def out_of_patience(best: Best | None, settings: BestConfig, done: int, every_steps: int | None) -> bool:
    """Whether so many measurements in a row up to step ``done`` were no better than ``best`` that the run ends."""
    if best is None or settings.patience is None or not every_steps:
        return False
    return done // every_steps - best.step // every_steps >= settings.patience
