"""A run that does not train what it says it trains is told of within its first steps."""

from __future__ import annotations

import logging
from collections.abc import Callable

import pytest
import torch
from torch import nn

from mmpretrain.distributed.world import World
from mmpretrain.engine.engine import Engine
from mmpretrain.engine.movement import ENOUGH, Movement
from tests.engine import runs


def watch(*groups: nn.Module) -> tuple[Movement, nn.Module]:
    """Each module has an optimizer of its own, called 0, 1 and so on."""
    whole = nn.ModuleList(groups)
    optimizers = {str(number): list(group.parameters()) for number, group in enumerate(groups)}
    return Movement(whole, optimizers, World.single()), whole


def test_all_that_moved_is_fine() -> None:
    movement, module = watch(nn.Linear(2, 2))
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(1)
    movement.stepped()
    assert movement.decided


def test_equal_moves_up_and_down_count() -> None:
    movement, module = watch(nn.LayerNorm(64))  # ones and zeros, as Adam's first step moves them
    signs = torch.tensor([1.0, -1.0]).repeat(32)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(1e-3 * signs)
    movement.stepped()
    assert movement.decided


def test_an_optimizer_that_moves_nothing_ends_the_run() -> None:
    movement, module = watch(nn.Linear(2, 2), nn.Linear(3, 3))
    for step in range(ENOUGH):
        with torch.no_grad():
            for parameter in module[0].parameters():  # type: ignore[index]
                parameter.add_(1)
        if step + 1 < ENOUGH:
            movement.stepped()
    with pytest.raises(ValueError, match=r"1 has moved none of its parameters in 8 steps \(1.weight, 1.bias\)"):
        movement.stepped()


def test_a_parameter_that_rests_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    movement, module = watch(nn.Linear(2, 2))
    with torch.no_grad():
        module[0].weight.add_(1)  # type: ignore[index]
    with caplog.at_level(logging.WARNING):
        for _ in range(ENOUGH):
            movement.stepped()
    assert "1 of 2 trained parameters have not moved in 8 steps" in caplog.text
    assert movement.decided


def test_nothing_is_decided_while_rates_warm_up() -> None:
    movement, _ = watch(nn.Linear(2, 2))
    for _ in range(2 * ENOUGH - 1):
        movement.stepped(warming_up=True)
    with pytest.raises(ValueError, match="in 16 steps"):
        movement.stepped(warming_up=False)


def silent(tokens: list[str]) -> Engine:
    """A run whose optimizer does nothing."""
    engine = runs.start(runs.tiny_config(*tokens))
    base = engine.deepspeed.optimizer
    base = getattr(base, "optimizer", base)
    base.step = lambda *_: None
    runs._run(engine, range(ENOUGH))
    return engine


@pytest.mark.parametrize(("world_size", "stage"), [(1, 0), (2, 3)])
def test_an_optimizer_that_is_off_ends_the_run(ranks: Callable, world_size: int, stage: int) -> None:
    answers = ranks(world_size, runs.refusal, silent, ["method=clip", f"engine=zero{stage}"])
    assert all("has moved none of its parameters in 8 steps" in answer for answer in answers)


def resting(tokens: list[str]) -> int:
    """A run whose encoders have a rate of 0; how many parameters it trains all the same."""
    tokens = [*tokens, *(f"model.encoders.{name}.lr_scale=0" for name in runs.MODALITIES)]
    engine = runs.start(runs.tiny_config(*tokens))
    runs._run(engine, range(ENOUGH))
    return sum(len(trained) for trained in engine._trained.values())


def test_what_is_to_rest_may_rest(ranks: Callable) -> None:
    """Muon's matrices all lie in encoders: with a rate of 0 it moves nothing, as was asked for."""
    tokens = ["method=clip", "optim.name=muon", "engine=zero0"]
    projected = [*tokens, *(f"model.encoders.{name}.projection_lr_scale=1" for name in runs.MODALITIES)]
    assert [ranks(1, resting, case)[0] for case in (projected, tokens)] == [len(runs.MODALITIES), 0]
