"""A run that goes on with other ranks, at another ZeRO stage or in another precision: what it takes over."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from deepspeed.utils import safe_get_full_fp32_param, safe_get_full_optimizer_state
from torch import Tensor

from mmpretrain.engine import checkpoint
from mmpretrain.engine.engine import Engine
from tests.engine import runs

BATCH = 24  # among 1, 2, 3 and 4 ranks
EACH = 4  # steps at each size
CHAIN = [(2, 1), (3, 3), (1, 2), (4, 0), (2, 1)]  # (ranks, ZeRO)
COMMON = [f"data.global_batch={BATCH}", "train.samples=960", "checkpoint.keep_last=9"]

State = dict[str, dict[str, Tensor]]


@contextmanager
def batches_of_24() -> Iterator[None]:
    """The made-up batches are of 16, which 3 ranks cannot share."""
    before, runs.GLOBAL_BATCH = runs.GLOBAL_BATCH, BATCH
    try:
        yield
    finally:
        runs.GLOBAL_BATCH = before


def part_of_a_run(folder: str, tokens: list[str], first: int, last: int) -> tuple[State, State, list[float]]:
    """(state as it was loaded, state as it was saved, losses) of the steps between, from the newest checkpoint."""
    with batches_of_24():
        config = runs.tiny_config(*COMMON, *tokens)
        engine = runs.start(config, first=first == 0)
        manifest = checkpoint.load_newest(engine, Path(folder))
        assert (manifest["step"] if manifest else 0) == first
        loaded = whole_state(engine) if manifest else {}
        losses = runs._run(engine, range(first, last))
        checkpoint.save(engine, Path(folder), last, {})
        return loaded, whole_state(engine), losses


def whole_state(engine: Engine) -> State:
    """Everything that is trained, by DeepSpeed's own way of putting it together; collectives."""
    deepspeed, stage = engine.deepspeed, engine.config.engine.zero
    if stage in (1, 2):
        deepspeed.optimizer._hp_optimizer_states_linked = False  # linked before the first step made them
        deepspeed.optimizer._lazy_init_hp_params_optimizer_state()
    found: State = {name: {"buffer": buffer.clone()} for name, buffer in deepspeed.module.named_buffers()}
    for name, parameter in deepspeed.module.named_parameters():
        found[name] = _of_parameter(deepspeed, stage, parameter)
    for owner in (engine.heads, engine.critics):
        state = owner.state_dict()
        found |= {f"{id}": {"weight": t.clone()} for id, t in state["modules"].items()}
        for number, held in ((state["optimizer"] or {}).get("state") or {}).items():
            found[f"{len(found)} {number}"] = {key: torch.as_tensor(value).clone() for key, value in held.items()}
    if engine.average:
        with engine.average.in_place():
            for name, parameter in deepspeed.module.named_parameters():
                if parameter.requires_grad:
                    found[name]["average"] = _full(stage, parameter)
    found["scale"] = {"scale": torch.tensor(engine.loss_scale.value if engine.loss_scale else 0.0)}
    return found


def _of_parameter(deepspeed: Any, stage: int, parameter: Tensor) -> dict[str, Tensor]:
    if not parameter.requires_grad:
        if stage < 3:
            return {"weight": parameter.detach().clone()}
        parts = [torch.empty_like(parameter.ds_tensor) for _ in range(torch.distributed.get_world_size())]
        torch.distributed.all_gather(parts, parameter.ds_tensor.contiguous())
        return {"weight": torch.cat(parts)[: parameter.ds_numel].view(parameter.ds_shape)}
    held = {"weight": _full(stage, parameter)}
    for key in ("exp_avg", "exp_avg_sq", "momentum_buffer"):
        if stage == 0:
            state = deepspeed.optimizer.state[parameter].get(key)
        else:
            state = (
                None if key not in _keys(deepspeed, stage, parameter) else safe_get_full_optimizer_state(parameter, key)
            )
        if state is not None:
            held[key] = state.detach().clone().view(held["weight"].shape)
    return held


def _keys(deepspeed: Any, stage: int, parameter: Tensor) -> set[str]:
    """Of the optimizer's states of a parameter, which may lie on another rank."""
    zero = deepspeed.optimizer
    groups = zero.bit16_groups if stage < 3 else zero.fp16_groups
    flats = zero.single_partition_of_fp32_groups if stage < 3 else zero.fp32_partitioned_groups_flat
    number = next(n for n, group in enumerate(groups) if any(p is parameter for p in group))
    return set(zero.optimizer.state[flats[number]])


def _full(stage: int, parameter: Tensor) -> Tensor:
    whole = parameter if stage == 0 else safe_get_full_fp32_param(parameter)
    assert whole is not None
    return whole.detach().clone()


def differing(left: State, right: State) -> list[str]:
    """What is not the same to the last bit."""
    assert left.keys() == right.keys()
    return [
        f"{name} {key}"
        for name in left
        for key in left[name].keys() | right[name].keys()
        if key not in left[name] or key not in right[name] or not torch.equal(left[name][key], right[name][key])
    ]


def check_chain(ranks: Callable, folder: Path, tokens: list[str], chain: list[tuple[int, int]] = CHAIN) -> None:
    """Each size takes over to the last bit, and all losses are those of a run that never changed."""
    steps, saved, losses = 0, [], []
    for size, stage in chain:
        arguments = (str(folder / "run"), [*tokens, f"engine.zero={stage}"], steps, steps + EACH)
        answers = ranks(size, part_of_a_run, *arguments)
        for rank, (loaded, now, _) in enumerate(answers):
            assert steps == 0 or differing(loaded, saved[rank % len(saved)]) == []
            assert rank == 0 or differing(now, answers[0][1]) == []
        saved = [answers[0][1]]
        losses += answers[0][2]
        steps += EACH
    _, _, straight = ranks(1, part_of_a_run, str(folder / "straight"), tokens, 0, steps)[0]
    assert losses == pytest.approx(straight, abs=1e-5, rel=0)


TINY = ["method=clip", "data.modalities.caption=null", "model.encoders.caption=null"]


def test_a_run_goes_on_with_other_ranks_and_stages_as_if_nothing_had_changed(ranks: Callable, tmp_path: Path) -> None:
    check_chain(ranks, tmp_path, ["method=m3col", "method.mix_group=2", "averaging.ema=0.9", "averaging.release=ema"])
