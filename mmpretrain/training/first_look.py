"""What ranks settle together before training, so that none goes its own way: each function is a collective."""

from __future__ import annotations

import logging

import torch

from mmpretrain.assembly.padding import pad_by_batch, padding_faults
from mmpretrain.assembly.unmasked import take_masks
from mmpretrain.config.root import Config
from mmpretrain.data.index import ShardError
from mmpretrain.data.stream import Stream
from mmpretrain.distributed.world import World
from mmpretrain.models.modeling_mmpretrain import MMPretrainModel
from mmpretrain.models.processing_mmpretrain import MMPretrainProcessor
from mmpretrain.problems import UnusableError
from mmpretrain.training.telling_apart import indistinct

logger = logging.getLogger(__name__)


def agree_on_the_index(stream: Stream, config: Config, world: World) -> None:
    """Ranks that read different indexes would train on samples in different orders, and nothing would show it.

    Raises ShardError, on all ranks, if they do.
    """
    part = int(stream.index.fingerprint[:12], 16)  # 48 bits: their sum over the ranks fits into int64
    total = world.all_reduce_sum(torch.tensor([part], device=world.device))
    if world.max_flag(int(total.item()) != part * world.size):
        raise ShardError(f"the ranks see different indexes of train in {config.data.place}: is it shared by all nodes?")


def settle_padding(config: Config, model: MMPretrainModel, processor: MMPretrainProcessor, world: World) -> None:
    """Pad by the batch what may be, and take masks of padding from encoders that are to do without. Raises
    UnusableError, on all ranks, if the config wants more than that."""
    faults = padding_faults(config, model, processor)
    for name, fault in faults.items():
        # Not all ranks need round alike, and their batches must not be padded by different rules.
        if world.max_flag(bool(fault)):
            faults[name] = fault or "gave a sample another embedding on another rank where it had more padding"
    problems, notes = pad_by_batch(config, processor, faults)
    problems += take_masks(config, model, processor)
    if world.max_flag(bool(problems)):
        raise UnusableError(problems or ["another rank's encoder gives a sample another embedding without a mask"])
    if world.rank == 0:
        for note in notes:
            logger.warning(note)


def tell_apart(config: Config, model: MMPretrainModel, processor: MMPretrainProcessor, world: World) -> None:
    """Raises UnusableError, on all ranks, if an encoder cannot tell inputs apart."""
    problems = indistinct(config, model, processor)
    if world.max_flag(bool(problems)):
        raise UnusableError(problems or ["another rank found inputs that an encoder cannot tell apart"])
