"""Bytes that a step moves between ranks: DeepSpeed's by formula, those of losses and heads by a step that is played.

Played means: with few rows of random features, on 2 and on 3 ranks of which only one is there, once as many rows and
once twice as many. What the collectives move grows evenly with rows and with ranks, which gives it for any number.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from mmpretrain.config.objective import Negatives, ObjectiveConfig
from mmpretrain.config.root import Config
from mmpretrain.data.step import Step
from mmpretrain.distributed.world import World
from mmpretrain.engine.gathering import gathering_limits
from mmpretrain.engine.replicated import Replicated
from mmpretrain.engine.told import OF_HOSTS, told_over_ranks
from mmpretrain.methods.base import Features, Losses, Method
from mmpretrain.training.prediction.counting import Collectives
from mmpretrain.training.prediction.layout import FULL, Group, Layout, kept_whole, share

FEW = 4  # rows of what is played, and twice as many; methods that mix samples do so in groups of that many
_NORM = 8  # bytes in which ZeRO 3 adds up the norm of a group
_SUB_GROUP = 1_000_000_000  # numbers of a rank that ZeRO 3 steps together at most: DeepSpeed's default


@dataclass(frozen=True)
class Wire:
    """Payloads of one optimizer step, in bytes, by kind of collective: of a gather and of a reduce-scatter the whole
    tensor, of an all-reduce the tensor, of a ring what is sent. ranks: how many take part."""

    gradients: dict[str, int]
    objective: dict[str, int]
    ranks: int

    @property
    def payloads(self) -> dict[str, int]:
        """Of both together."""
        kinds = sorted(self.gradients.keys() | self.objective.keys())
        return {kind: self.gradients.get(kind, 0) + self.objective.get(kind, 0) for kind in kinds}

    @property
    def sent(self) -> int:
        """Bytes that each rank sends, by the algorithms that need fewest (rings)."""
        return sum(_sent(kind, payload, self.ranks) for kind, payload in self.payloads.items())


@dataclass
class AsInTraining(ObjectiveConfig):
    """Chooses where negatives come from as for the whole batch of the run (``batch`` samples), however few are played.

    width: the most floats of a sample that a loss asked for, which are those that travel.
    """

    batch: int = 0
    width: int = 0

    @classmethod
    def of(cls, config: Config) -> AsInTraining:
        """What losses get in place of ``config.objective``."""
        return cls(**vars(config.objective), batch=config.data.global_batch)

    def mode(self, rows: int, width: int) -> Negatives:
        """As of the base; ``rows`` do not count."""
        self.width = max(self.width, width)
        return super().mode(self.batch, width)


def _sent(kind: str, payload: int, ranks: int) -> int:
    share_of = {"allreduce": 2 * (ranks - 1) / ranks, "send": 1.0, "recv": 0.0}
    return round(payload * share_of.get(kind, (ranks - 1) / ranks))


def gradient_bytes(config: Config, layout: Layout, ranks: int) -> dict[str, int]:
    """What DeepSpeed and the optimizer move of the model in a step: gradients, weights, and the norm of each group."""
    if ranks == 1:
        return {}
    stage, parts = config.engine.zero, config.engine.micro_batches
    times = 1 if stage < 2 or config.engine.coalesce_reduction else parts
    trained = [parameter for group in layout.groups for parameter in group.parameters]
    if stage == 0:
        return {"allreduce": FULL * layout.trained}
    matrices = _matrices(config, layout, ranks)
    if stage < 3:
        reduced = times * sum(p.numel() * layout.moved(p) for p in trained)
        aligned = FULL * sum(group.aligned(ranks) for group in layout.groups)
        return {"allreduce": reduced + FULL * len(layout.groups), "_allgather_base": aligned, **matrices}
    return {
        "allreduce": _NORM * sum(math.ceil(group.shares(ranks) / _SUB_GROUP) for group in layout.groups),
        "_allgather_base": _gathers(config, layout, ranks),
        "_reduce_scatter_base": times * sum(ranks * share(p, ranks) * layout.moved(p) for p in trained),
        **matrices,
    }


def _matrices(config: Config, layout: Layout, ranks: int) -> dict[str, int]:
    """What Muon moves: matrices of which ranks hold parts travel to one rank, in turn, and back; seen from rank 0."""
    moved = 0
    for group in layout.groups:
        if group.matrices:
            divided = _divided(config.engine.zero, group, ranks)
            for start in range(0, len(divided), ranks):
                batch = divided[start : start + ranks]
                moved += 2 * FULL * max(batch[0][0], sum(own for _, own in batch))
    return {"alltoall_base": moved} if moved else {}


def _divided(stage: int, group: Group, ranks: int) -> list[tuple[int, int]]:
    """Of the matrices that lie on several ranks: their numbers, and those of rank 0."""
    if stage == 3:
        return [(p.numel(), share(p, ranks)) for p in group.parameters if share(p, ranks) < p.numel()]
    found, start, size = [], 0, group.aligned(ranks) // ranks
    for parameter in group.parameters:
        end = start + parameter.numel()
        if start // size != (end - 1) // size:
            found.append((parameter.numel(), max(0, size - start)))
        start = end
    return found


def _gathers(config: Config, layout: Layout, ranks: int) -> int:
    """ZeRO 3: small weights once a step; others for every pass, or for both passes together while they are few."""
    limit = kept_whole(config)
    small = [p for p in layout.all if p.numel() <= limit]
    large = [p for p in layout.all if p.numel() > limit]
    once, total = (sum(ranks * share(p, ranks) * layout.moved(p) for p in of) for of in (small, large))
    if config.engine.micro_batches > 1:
        return once + 3 * config.engine.micro_batches * total
    # The distance counts what is used between the two uses of a weight, forward and backward.
    reuse = gathering_limits(config, layout.numel, ranks)["stage3_max_reuse_distance"]
    again = max(0.0, 1 - reuse / 2 / max(1, layout.numel))
    return once + int(total * (1 + again))


def objective_bytes(config: Config, method: Method, features: Callable[[int], Features], ranks: int) -> dict[str, int]:
    """What the losses, the heads and the records move in a step.

    method: with its heads on the CPU, and :class:`AsInTraining` in ``contrast``; heads are left with other numbers.
    features: rows -> random ones of a batch.
    """
    if ranks == 1:
        return {}
    found = {(n, w): _played(config, method, features(n), w) for n in (FEW, 2 * FEW) for w in (2, 3)}
    kinds = {kind for moved in found.values() for kind in moved}
    local = config.data.global_batch // ranks
    return {kind: _extended({at: moved.get(kind, 0) for at, moved in found.items()}, local, ranks) for kind in kinds}


def _extended(values: dict[tuple[int, int], int], rows: int, ranks: int) -> int:
    """The value at (rows, ranks) of what grows evenly with both."""
    by_ranks = [values[FEW, w] + (values[2 * FEW, w] - values[FEW, w]) * (rows - FEW) // FEW for w in (2, 3)]
    return by_ranks[0] + (by_ranks[1] - by_ranks[0]) * (ranks - 2)


def _played(config: Config, method: Method, features: Features, ranks: int) -> dict[str, int]:
    """Kind -> payload of one step on so many ranks."""
    method.critics.requires_grad_(True)  # an optimizer takes what needs a gradient
    with _alone_among(ranks) as world:
        heads, critics = Replicated(method.heads, config.optim, world), Replicated(method.critics, config.optim, world)
        step = Step(0, 0.0, max(1.0, config.train.samples / config.data.global_batch), config.seed)
        with _Played() as counted:
            refines = critics.optimizer is not None
            refined = _refine(method, critics, features, step, world) if refines else {}
            leaves = [tensor.requires_grad_() for tensor in features.tensors]
            losses = method.objective(features, step, world)
            losses.total.backward()
            heads.update(0.0, method.clamp_)
            told = {"loss": losses.total, **losses.terms, **losses.diagnostics, **refined}
            ids = world.all_gather_rows(features.sample_ids) if config.data.record_keys else None
            told_over_ranks({k: v.detach() for k, v in told.items()}, OF_HOSTS, world, ids)
        for leaf in leaves:
            leaf.requires_grad_(False).grad = None
    return {kind: moved.payload for kind, moved in counted.found.items()}


def _refine(method: Method, critics: Replicated, features: Features, step: Step, world: World) -> dict[str, Tensor]:
    losses = Losses({})
    for _ in range(method.refinement.times):
        losses = method.refine(features, step, world)
        losses.total.backward()
        critics.update()
    method.critics.requires_grad_(False)
    terms = {f"critics/{name}": term for name, term in losses.terms.items()}
    return {**terms, **losses.diagnostics, "critics/grad_norm": torch.zeros(())}


@contextmanager
def _alone_among(ranks: int) -> Iterator[World]:
    """A process group of so many ranks of which this process is the first, and the others do not exist."""
    from torch.testing._internal.distributed.fake_pg import FakeStore

    dist.init_process_group("fake", rank=0, world_size=ranks, store=FakeStore())
    try:
        yield replace(World.current(), even=True)
    finally:
        dist.destroy_process_group()


class _Played(Collectives):
    """Gives the others' rows finite numbers: this rank's, whole ones moved so that no two ranks have the same."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run and count the operation, and fill what it would have received."""
        made = super().__torch_dispatch__(func, types, args, kwargs)
        name = func._schema.name if func.namespace == "c10d" else ""
        if name == "c10d::_allgather_base_":
            output, own = args[0], args[1]
            rows = output.view(-1, *own.shape)
            rows.copy_(own.expand_as(rows))
            if not own.is_floating_point() and own.dtype is not torch.bool:
                rows += torch.arange(len(rows), dtype=own.dtype).mul_(1 << 20).view(-1, *[1] * own.dim())
        elif name == "c10d::_reduce_scatter_base_":
            args[0].copy_(args[1].view(-1, *args[0].shape)[0])
        elif name in ("c10d::recv_", "c10d::alltoall_base_"):
            for tensor in args[0] if isinstance(args[0], (list, tuple)) else [args[0]]:
                tensor.zero_()
        return made
