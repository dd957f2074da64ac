"""A run's state into an engine of another number of ranks, ZeRO stage or precision than the one that wrote it.

Every rank reads what it will hold: the numbers of its own fragments, out of whichever files they lie in, straight into
their place. Nothing is converted on disk, no collective is needed to move anything, and no rank holds more than its
share. The numbers are the same to the last bit; the steps that follow are equal up to rounding, as sums of other parts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mmpretrain.engine.checkpoint_files import CheckpointError
from mmpretrain.engine.checkpoint_states import STEP, WEIGHT, StoredStates, Stretch
from mmpretrain.engine.live_weights import LiveWeights

ADAM, MUON = ("exp_avg", "exp_avg_sq"), ("momentum_buffer",)


class Place(NamedTuple):
    """Where this rank holds numbers of a parameter.

    tensor: what the optimizer steps (or the frozen weights). offset: where in it they begin. span: which of the flat
    parameter they are.
    """

    tensor: Tensor
    offset: int
    span: range


def reshard(deepspeed: Any, stage: int, order: list[str], live: LiveWeights, folder: Path, ranks: int) -> None:
    """Take the weights and the optimizer's state out of ``folder``, where ``ranks`` ranks wrote DeepSpeed's files.

    A collective. deepspeed: DeepSpeed's engine at ``stage``. order: see :class:`StoredStates`. live: of the same
    engine. Raises CheckpointError when the checkpoint does not hold exactly what this engine needs.
    """
    stored = StoredStates(folder, ranks, order)
    trained, frozen = dict(_trained(deepspeed, stage, live.rank)), dict(_frozen(deepspeed, stage, live.rank))
    states = _empty_states(deepspeed, stage, stored.step)
    wanted = {name: place.span for name, place in (trained | frozen).items()}
    filled: Counter[tuple[str, str]] = Counter()
    with torch.no_grad():
        for stretch in stored.stretches(wanted):
            place = trained.get(stretch.name) or frozen[stretch.name]
            held = states[place.tensor] if stretch.key != WEIGHT else {WEIGHT: place.tensor}
            filled[stretch.name, stretch.key] += _put(stretch, place, held, folder)
    _check(filled, wanted, {name: list(states[place.tensor]) for name, place in trained.items()}, stored)
    _take_buffers(deepspeed.module, stored)
    live.refresh()
    for name, count in stored.counters.items():
        setattr(deepspeed, name, count)


def _put(stretch: Stretch, place: Place, held: dict[str, Tensor], folder: Path) -> int:
    if stretch.key not in held:
        raise CheckpointError(
            f"{folder} holds {stretch.key} of {stretch.name}, which this run's optimizer has not: the checkpoint was"
            " not written by this run"
        )
    count = stretch.numbers.numel()
    target = held[stretch.key].data.view(-1) if held[stretch.key].is_contiguous() else None
    begin = place.offset + stretch.start - place.span.start
    if target is not None:
        target[begin : begin + count].copy_(stretch.numbers)
    else:  # whole, at stage 0 alone
        held[stretch.key].data.copy_(stretch.numbers.view(held[stretch.key].shape))
    return count


def _trained(deepspeed: Any, stage: int, rank: int) -> Iterator[tuple[str, Place]]:
    zero = deepspeed.optimizer
    names = {id(p): name for name, p in deepspeed.module.named_parameters() if p.requires_grad}
    if stage == 0:
        for group in zero.param_groups:
            yield from ((names[id(p)], Place(p, 0, range(p.numel()))) for p in group["params"])
    elif stage < 3:
        for parameters, flat in zip(zero.bit16_groups, zero.single_partition_of_fp32_groups, strict=True):
            for parameter in (p for p in parameters if p._hp_mapping is not None):
                whole, own = parameter._hp_mapping.lp_fragment_address, parameter._hp_mapping.hp_fragment_address
                span = range(whole.start, whole.start + whole.numel)
                yield names[id(parameter)], Place(flat, own.start, span)
    else:
        for group, parameters in enumerate(zero.fp16_groups):
            for parameter in parameters:
                _, offset, size = zero.grad_position[zero.get_param_id(parameter)]
                start = min(rank * size, parameter.ds_numel)
                span = range(start, min(start + size, parameter.ds_numel))
                if span:
                    yield names[id(parameter)], Place(zero.fp32_partitioned_groups_flat[group], offset, span)


def _frozen(deepspeed: Any, stage: int, rank: int) -> Iterator[tuple[str, Place]]:
    for name, parameter in deepspeed.module.named_parameters():
        if parameter.requires_grad:
            continue
        if stage < 3:
            yield name, Place(parameter, 0, range(parameter.numel()))
        else:
            start = min(rank * parameter.ds_tensor.numel(), parameter.ds_numel)
            yield (
                name,
                Place(
                    parameter.ds_tensor, 0, range(start, min(start + parameter.ds_tensor.numel(), parameter.ds_numel))
                ),
            )


def _empty_states(deepspeed: Any, stage: int, step: float) -> dict[Tensor, dict[str, Tensor]]:
    """The optimizer's state of all that it steps on this rank, made as its first step would make it."""
    zero = deepspeed.optimizer
    optimizer = zero.optimizer if stage else zero
    found: dict[Tensor, dict[str, Tensor]] = {}
    for tensor, group in _stepped(zero, stage):
        matrices = bool(group.get("matrices"))
        state = optimizer.state[tensor]
        for key in MUON if matrices else ADAM:
            state[key] = state[key].zero_() if key in state else torch.zeros_like(tensor)
        found[tensor] = {key: state[key] for key in (MUON if matrices else ADAM)}
        if not matrices:
            state[STEP] = torch.tensor(step, dtype=torch.float32, device=tensor.device)
    return found


def _stepped(zero: Any, stage: int) -> Iterator[tuple[Tensor, dict[str, Any]]]:
    """What the optimizer steps, and the settings of its group."""
    if stage == 0:
        yield from ((parameter, group) for group in zero.param_groups for parameter in group["params"])
    elif stage < 3:
        yield from zip(zero.single_partition_of_fp32_groups, zero.optimizer.param_groups, strict=True)
    else:
        for number, flat in enumerate(zero.fp32_partitioned_groups_flat):
            yield flat, zero.optimizer.param_groups[zero.sub_group_to_group_id[number]]


def _check(
    filled: Counter[tuple[str, str]], wanted: dict[str, range], states: dict[str, list[str]], stored: StoredStates
) -> None:
    """That every number came from the checkpoint. Stage 0 has no state of what never had a gradient: there it is 0."""
    for name, span in wanted.items():
        for key in [WEIGHT, *states.get(name, ())]:
            count = filled[name, key]
            never = count == 0 and key != WEIGHT and not stored.divided
            if count != len(span) and not never:
                raise CheckpointError(
                    f"{stored.folder} holds {count} numbers of {name} ({key}) where this rank needs {len(span)}: the"
                    " checkpoint was not written by this run"
                )


def _take_buffers(module: torch.nn.Module, stored: StoredStates) -> None:
    kept = module.state_dict().keys()
    for name, buffer in module.named_buffers():
        if name not in kept:
            continue
        found = stored.buffers.get(name)
        if found is None or found.shape != buffer.shape:
            raise CheckpointError(f"{stored.folder} lacks the buffer {name}: it was not written by this run")
        buffer.copy_(found)
