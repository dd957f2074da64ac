"""What lies in the host's memory trains as what does not: losses, gradient norms, weights, averages, resuming."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from mmpretrain.config.compose import ConfigError, compose
from mmpretrain.engine.deepspeed_setup import deepspeed_config
from mmpretrain.engine.engine import Engine
from tests.engine import runs

TOKENS = ["method=clip", "averaging.ema=0.5"]


def averaged(*tokens: str) -> tuple[runs.Outcome, runs.Outcome]:
    """Outcomes of 4 steps: with the weights, and with their average in their place."""
    config, kept = runs.tiny_config(*TOKENS, *tokens), list[Engine]()
    found = runs.outcome(config, 4, kept.append)
    with kept[0].evaluated_weights():
        weights = kept[0].state_dict() or {}
    return found, runs.Outcome(found.losses, found.norms, weights, None)


def check(ranks: Callable, world_size: int, zero: int, offload: str) -> None:
    stage = f"engine=zero{zero}"
    right, ours = (ranks(world_size, averaged, stage, *more)[0] for more in ([], [f"engine.offload={offload}"]))
    for one, other in zip(ours, right, strict=True):
        runs.check_equal(one, other)


def test_deepspeed_is_told_what_lies_where() -> None:
    told = [
        deepspeed_config(runs.tiny_config("engine=zero3", f"engine.offload={offload}"), 2)["zero_optimization"]
        for offload in ("none", "optimizer", "parameters")
    ]
    kept = [[zero.get(f"offload_{what}", {}).get("device") for what in ("optimizer", "param")] for zero in told]
    assert kept == [[None, None], ["cpu", None], ["cpu", "cpu"]]


def test_parameters_in_the_host_s_memory_train_the_same(ranks: Callable) -> None:
    check(ranks, 2, 3, "parameters")


@pytest.mark.slow
@pytest.mark.parametrize("zero", [1, 2, 3])
@pytest.mark.parametrize("world_size", [1, 2])
def test_states_in_the_host_s_memory_train_the_same(ranks: Callable, world_size: int, zero: int) -> None:
    check(ranks, world_size, zero, "optimizer")


@pytest.mark.slow
@pytest.mark.parametrize(("zero", "offload"), [(1, "optimizer"), (2, "optimizer"), (3, "optimizer"), (3, "parameters")])
def test_resuming_is_bit_equal(ranks: Callable, tmp_path: Path, zero: int, offload: str) -> None:
    tokens = [*TOKENS, f"engine=zero{zero}", f"engine.offload={offload}"]
    straight, resumed, losses, losses_again = ranks(2, runs.train_and_resume, tokens, 4, str(tmp_path))[0]
    assert straight == resumed and losses == losses_again


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        (["engine=zero0", "engine.offload=optimizer"], "no effect with engine.zero=0"),
        (["engine=zero2", "engine.offload=parameters"], "set engine.zero=3"),
        (["engine=zero3", "engine.offload=optimizer", "optim=muon"], "engine.offload=optimizer: optim.name=muon"),
        (
            ["engine.offload=optimizer", "engine.deepspeed.zero_optimization.offload_optimizer.device=cpu"],
            "says the same",
        ),
    ],
)
def test_what_offloading_cannot_do_is_refused(tokens: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        compose([*runs.TINY, "method=clip", *tokens])
