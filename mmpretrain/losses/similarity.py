"""What the losses over pairs share: rows of unit length, where they stand, and where negatives come from."""

from __future__ import annotations

import functools
import logging

import torch
from torch import Tensor

from mmpretrain.config.objective import Negatives, ObjectiveConfig
from mmpretrain.distributed.world import World
from mmpretrain.models.similarity_mmpretrain import squarable

logger = logging.getLogger(__name__)


def resolve_negatives(settings: ObjectiveConfig, rows: int, width: int, world: World) -> Negatives:
    """gather, ring or local, for ``rows`` samples per rank with ``width`` floats that other ranks need."""
    mode = settings.mode(rows * world.size, width)
    if settings.negatives is Negatives.auto and world.size > 1:
        _say(mode, settings.gather_mb)
    return mode


@functools.cache
def _say(mode: Negatives, limit: int) -> None:
    side = "within" if mode is Negatives.gather else "beyond"
    logger.info("objective.negatives=auto: %s (embeddings and gradients %s gather_mb=%d)", mode.value, side, limit)


def negatives_from(world: World, negatives: Negatives) -> World:
    """The ranks whose samples are negatives: all of ``world``, or this rank alone."""
    return World.single() if negatives is Negatives.local else world


def unit_rows(rows: Tensor, valid: Tensor | None = None, factor: Tensor | float = 1.0) -> Tensor:
    """[b, d] rows, in float32 at least, brought to the length ``factor`` (a scalar or [b, 1]).

    A row of norm 0 stays 0 and passes its gradient on; so does one whose gradient would be too large for its type
    (entries below 1e-37 in float32). valid: bool [b]; the other rows become 0 whatever they hold, and get no gradient.
    """
    rows = at_least_float32(rows)
    if valid is not None:
        rows = torch.where(valid[:, None], rows, 0)
    rows = squarable(rows) if rows.numel() else rows
    norms = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
    # Division by a tiny constant instead would multiply that row's gradient by its inverse.
    return rows * (factor / torch.where(norms > 0, norms, torch.ones_like(norms)))


def at_least_float32(values: Tensor) -> Tensor:
    """``values`` with half-precision types widened to float32; float64 stays."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def own_rows(rows: int, world: World, device: torch.device) -> Tensor:
    """int64 [b]: where this rank's rows stand in the whole batch."""
    return torch.arange(rows, device=device) + world.rank * rows
