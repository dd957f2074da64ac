"""Memory of one rank: what is there all the time, by formula, and what a step adds, by a trace of the encoders."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from mmpretrain.config.engine import Offload
from mmpretrain.config.root import Config
from mmpretrain.engine.gathering import gathering_limits
from mmpretrain.training.prediction.layout import FULL, Layout, bytes_of, share
from mmpretrain.training.prediction.trace import Traced


@dataclass(frozen=True)
class Memory:
    """Bytes of one rank. total: the most at any moment; the other parts are not all there at that moment.

    weights: as encoders use them, frozen ones and heads included. masters: the float32 weights that are stepped, where
    those are others. optimizer: its states. average: of the weights. gradients: at the end of a backward pass, and
    their partitions. gathered: weights that ZeRO 3 brings together. activations: the most of a forward or backward
    pass. inputs: the batch. loss: embeddings of all ranks, their gradients and tiles. host: of GPUs' ranks, what
    ``engine.offload`` keeps in the memory of the host, and none of the others counts.
    """

    total: int
    weights: int
    masters: int
    optimizer: int
    average: int
    gradients: int
    gathered: int
    activations: int
    inputs: int
    loss: int
    host: int = 0


def standing(config: Config, layout: Layout, heads: nn.Module, critics: nn.Module, ranks: int) -> dict[str, int]:
    """What is there all the time on rank 0, after the first step: weights, masters, optimizer, average."""
    stage = config.engine.zero
    beside = [*heads.parameters(), *critics.parameters()]
    small = sum(p.numel() * FULL for p in beside) + bytes_of(layout.buffers)
    small += bytes_of([*heads.buffers(), *critics.buffers()])
    states = 2 * FULL * sum(p.numel() for p in beside)
    frozen = bytes_of(layout.frozen)
    if stage == 0:
        weights, masters = FULL * layout.trained + frozen, 0
        optimizer = sum(group.states * FULL * group.numel for group in layout.groups)
        stepped = layout.trained
    elif stage < 3:
        weights = FULL * sum(group.aligned(ranks) for group in layout.groups) + frozen
        masters = FULL * sum(group.aligned(ranks) // ranks for group in layout.groups)
        optimizer = sum(group.states * FULL * (group.aligned(ranks) // ranks) for group in layout.groups)
        stepped = masters // FULL
    else:
        stepped = sum(group.shares(ranks) for group in layout.groups)
        weights = FULL * (stepped + sum(share(parameter, ranks) for parameter in layout.frozen))
        masters = FULL * stepped
        optimizer = sum(group.states * FULL * group.shares(ranks) for group in layout.groups)
    average = 0 if config.averaging.ema is None else FULL * (stepped + sum(p.numel() for p in heads.parameters()))
    return {"weights": weights + small, "masters": masters, "optimizer": optimizer + states, "average": average}


def memory(
    config: Config,
    layout: Layout,
    fixed: dict[str, int],
    trace: Traced,
    loss: int,
    heads: nn.Module,
    ranks: int,
    gpu: bool,
) -> Memory:
    """The whole of it. fixed: of :func:`standing`. loss: bytes of the objective, features and heads aside."""
    stage = config.engine.zero
    partition = _partitions(config, layout, ranks, gpu)
    fixed, partition, host = _offloaded(config.engine.offload, fixed, partition) if gpu else (fixed, partition, 0)
    gathered, arriving = _gathered(config, layout, ranks)
    always = sum(fixed.values()) + trace.inputs + partition
    known = 2 * trace.features  # of the whole batch, and their gradients
    beside = bytes_of([parameter for parameter in heads.parameters() if parameter.requires_grad])
    moments = (
        trace.forward + gathered + arriving,
        trace.held + gathered + arriving + known + loss + beside,
        trace.backward + gathered + known + beside,
        trace.gradients + _flat_gradients(layout, stage, ranks) + known + beside,
        # Gradients of heads are put together and added up before the model's own are made: both norms are read at once.
        trace.held + gathered + known + (3 if ranks > 1 else 1) * beside,
    )
    gradients = max(trace.arrived, trace.gradients)
    return Memory(
        total=always + max(moments),
        **fixed,
        gradients=partition + gradients,
        gathered=gathered + arriving,
        activations=max(trace.forward, trace.held, trace.backward - gradients),
        inputs=trace.inputs,
        loss=known + loss,
        host=host,
    )


def _offloaded(offload: Offload, fixed: dict[str, int], partition: int) -> tuple[dict[str, int], int, int]:
    """What stays on the device of ``fixed`` and of the gradients' partition, and how much lies on the host."""
    if offload is Offload.none:
        return fixed, partition, 0
    away = ["masters", "optimizer", *(["weights"] if offload is Offload.parameters else [])]
    host = sum(fixed[name] for name in away) + partition
    return fixed | dict.fromkeys(away, 0), 0, host


def _partitions(config: Config, layout: Layout, ranks: int, gpu: bool) -> int:
    """Gradients of its own part that a rank keeps from one step to the next, and buffers that are always there."""
    stage = config.engine.zero
    if stage == 3:
        bucket = gathering_limits(config, layout.numel, ranks)["reduce_bucket_size"]
        kinds = len({layout.moved(p) for group in layout.groups for p in group.parameters})
        return FULL * (sum(group.shares(ranks) for group in layout.groups) + (bucket * kinds if gpu else 0))
    if gpu and stage in (1, 2) and ranks > 1:
        return FULL * sum(group.aligned(ranks) // ranks for group in layout.groups)
    return 0


def _flat_gradients(layout: Layout, stage: int, ranks: int) -> int:
    """The copy of a group's gradients that stages 1 and 2 step from."""
    return FULL * max(group.aligned(ranks) // ranks for group in layout.groups) if stage in (1, 2) else 0


def _gathered(config: Config, layout: Layout, ranks: int) -> tuple[int, int]:
    """ZeRO 3: the float32 weights that are whole at a time, and in the forward pass what the newest of them came in."""
    if config.engine.zero < 3 or ranks == 1:
        return 0, 0
    limits = gathering_limits(config, layout.numel, ranks)
    live, ahead = limits["stage3_max_live_parameters"], limits["stage3_prefetch_bucket_size"]
    numel, moved = layout.numel, sum(p.numel() * layout.moved(p) for p in layout.all)
    largest = max(p.numel() for p in layout.all)  # which comes whole, whatever the limits
    # In micro-batches weights are fetched layer by layer.
    arriving = 0 if config.engine.micro_batches > 1 else int(moved * min(1, max(ahead, largest) / numel))
    return FULL * min(numel, live + largest), arriving
