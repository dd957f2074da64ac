"""Steps that went wrong: what of them is not a finite number, so that a run says why it ends.

Everything here is looked at only after such a step. What ranks found is put together by collectives, so all of them
must come here alike, and all say the same.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mmpretrain.distributed.world import World
from mmpretrain.endings import Ending
from mmpretrain.engine.live_weights import MODEL, LiveWeights
from mmpretrain.methods.base import Features
from mmpretrain.words import listed

HUGE = 1e8  # no weight of a model that trains comes near
MOST = 3  # names in a message


class NonFiniteError(RuntimeError):
    """The loss or its gradient became nan or inf; going on would waste time and spoil the checkpoints."""

    ending = Ending.diverged


@dataclass(frozen=True)
class Fault:
    """What is not finite, the same on all ranks. gradients, weights: names of parameters; of the model's
    ``model.NAME``, of heads ``heads.NAME``. samples: rank and ordinal of those whose features are not."""

    gradients: tuple[str, ...] = ()
    weights: tuple[str, ...] = ()
    samples: tuple[tuple[int, int], ...] = ()

    def words(self, keys: Mapping[int, str]) -> str:
        """In one line, with the samples' keys by ordinal; empty if nothing is known."""
        parts = []
        if self.weights:
            parts.append(f"weights of {listed(self.weights, MOST)}")
        if self.samples:
            named = [f"{keys.get(ordinal, ordinal)} (rank {rank})" for rank, ordinal in self.samples]
            parts.append(f"features of {listed(named, MOST)}")
        if self.gradients:
            parts.append(f"gradients of {listed(self.gradients, MOST)}")
        return f"not finite are the {'; the '.join(parts)}" if parts else ""

    @property
    def advice(self) -> str:
        """What helps."""
        if self.samples and not self.weights:
            return "look at these samples, or lower optim.lr or optim.clip"
        return "lower optim.lr or optim.clip"


def find_fault(
    features: Features | None, gradients: Iterable[str], names: Sequence[str], live: LiveWeights, world: World
) -> Fault:
    """Put together what all ranks know; a collective.

    features: of this rank's samples, None before they were made on any rank. gradients: names of parameters whose
    gradients this rank found not to be finite. names: of all that there are, in the same order on all ranks.
    """
    bad_weights = {name for name, part in live.fragments().items() if not bool(part.numbers.isfinite().all())}
    bad_gradients = set(gradients)
    flags = [[name in bad for name in names] for bad in (bad_gradients, bad_weights)]
    found = world.all_reduce_max(torch.tensor(flags, dtype=torch.float32, device=world.device)).tolist()
    chosen = [tuple(name for name, flag in zip(names, row, strict=True) if flag) for row in found]
    return Fault(chosen[0], chosen[1], () if features is None else _samples(features, world))


def _samples(features: Features, world: World) -> tuple[tuple[int, int], ...]:
    """Rank and ordinal of the samples that have features that are not finite."""
    bad = torch.zeros(len(features.sample_ids), dtype=torch.bool, device=features.sample_ids.device)
    for tensor in features.tensors:
        if len(tensor) == len(bad):
            bad |= ~tensor.detach().reshape(len(bad), -1).isfinite().all(dim=1)
    rows = torch.stack([features.sample_ids.to(torch.int64), bad.to(torch.int64)], dim=1).to(world.device)
    gathered = world.all_gather_rows(rows)
    size = len(gathered) // world.size
    return tuple((row // size, ordinal) for row, (ordinal, flag) in enumerate(gathered.tolist()) if flag)


def bad_gradients(model: nn.Module, optimizer: Any, stage: int) -> set[str]:
    """Names of the model's parameters of whose gradients this rank holds something that is not finite.

    To be asked while DeepSpeed still has them: inside of its step.
    """
    names = {id(parameter): f"{MODEL}{name}" for name, parameter in model.named_parameters()}
    found = {names[id(p)] for p in model.parameters() if p.grad is not None and not _finite(p.grad)}
    if stage == 0:
        return found
    groups = optimizer.fp16_groups if stage == 3 else optimizer.params_in_partition
    held = getattr(optimizer, "averaged_gradients", None) or {}
    for index, parameters in enumerate(groups):
        gradients = held.get(index) or [] if isinstance(held, dict) else held[index]
        for parameter, gradient in zip(parameters, gradients, strict=False):  # padding may follow
            if gradient is not None and not _finite(gradient):
                found.add(names.get(id(parameter), "?"))
    return found | {names.get(id(p), "?") for p, part in _in_host_memory(optimizer, stage) if not _finite(part)}


def _in_host_memory(optimizer: Any, stage: int) -> Iterator[tuple[nn.Parameter, Tensor]]:
    """Parameters and this rank's parts of their gradients, where these lie with an optimizer that is offloaded: in one
    flat tensor per group (docs/large-models.md); nothing for others, whose flat gradients are not there any more."""
    if stage == 3:
        for group, flat in enumerate(optimizer.fp32_partitioned_groups_flat):
            for parameter in optimizer.fp16_groups[group] if flat.grad is not None else ():
                _, start, count = optimizer.grad_position[optimizer.get_param_id(parameter)]
                yield parameter, flat.grad.narrow(0, start, count)
        return
    for parameters, flat in zip(optimizer.bit16_groups, optimizer.single_partition_of_fp32_groups, strict=True):
        for parameter in parameters if flat.grad is not None else ():
            if (mapping := parameter._hp_mapping) is not None:
                place = mapping.hp_fragment_address
                yield parameter, flat.grad.view(-1).narrow(0, place.start, place.numel)


def _finite(tensor: Tensor) -> bool:
    return bool(tensor.isfinite().all())


def blown_up(live: LiveWeights, critics: nn.Module) -> str | None:
    """Words for weights of this rank that no training reaches; None if all are as they should be.

    For errors that are raised where only such weights lead; no collective.
    """
    weights = {name: part.numbers for name, part in live.fragments().items()}
    weights |= {f"critics.{name}": p.detach() for name, p in critics.named_parameters()}
    sizes = {name: float(numbers.abs().max()) for name, numbers in weights.items() if numbers.numel()}
    huge = {name: size for name, size in sizes.items() if not math.isfinite(size) or size > HUGE}
    if not huge:
        return None
    largest = max((size for size in huge.values() if math.isfinite(size)), default=math.nan)
    return f"weights have become as large as {largest:.2g} ({listed(sorted(huge), MOST)})"
