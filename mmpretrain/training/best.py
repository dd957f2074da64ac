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

    results: of the evaluation, on rank 0. A collective. Raises ValueError, on all ranks, if they lack the score or it
    is not finite.
    """
    if settings.score is None:
        return best
    value = results.get(settings.score, math.nan) if world.rank == 0 else 0.0
    value = float(world.all_reduce_sum(torch.tensor([value], dtype=torch.float64, device=world.device)).item())
    if not math.isfinite(value):
        known = f", only {', '.join(results)}" if world.rank == 0 else ""
        raise ValueError(f"evaluation.best.score: the evaluation has no finite {settings.score!r}{known}")
    if best is not None and not (value < best.value if settings.lower else value > best.value):
        return best
    return Best(settings.score, step, value, settings.split)
