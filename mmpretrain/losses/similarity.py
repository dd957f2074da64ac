"""What the losses over pairs share: rows of unit length, where they stand, and where negatives come from."""

from __future__ import annotations

import functools
import logging
from dataclasses import replace

import torch
from torch import Tensor

from mmpretrain.config.objective import Negatives, ObjectiveConfig
from mmpretrain.distributed.world import World
from mmpretrain.models.similarity_mmpretrain import at_least_float32
from mmpretrain.models.similarity_mmpretrain import unit_rows as of_length

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
    alone = replace(World.single(), device=world.device, even=world.even, ahead=world.ahead)
    return alone if negatives is Negatives.local else world


def unit_rows(rows: Tensor, valid: Tensor | None = None, factor: Tensor | float = 1.0) -> Tensor:
    """[b, d] rows, in float32 at least, brought to the length ``factor`` (a scalar or [b, 1]), as released models do.

    valid: bool [b]; the other rows become 0 whatever they hold, and get no gradient.
    """
    rows = at_least_float32(rows)
    return of_length(rows if valid is None else torch.where(valid[:, None], rows, 0), factor)


def own_rows(rows: int, world: World, device: torch.device) -> Tensor:
    """int64 [b]: where this rank's rows stand in the whole batch."""
    return torch.arange(rows, device=device) + world.rank * rows
