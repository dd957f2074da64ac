"""The average of the weights is that of one plain process, at every stage of ZeRO, and survives a checkpoint."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn

from mmpretrain.engine import checkpoint
from mmpretrain.engine.average import decay_after
from mmpretrain.engine.engine import Engine
from tests.engine import runs

STEPS = 6
TOKENS = ["method=clip", "averaging.ema=0.8"]


def whole(engine: Engine) -> dict[str, Tensor]:
    """The weights of model and heads on rank 0; the heads' alone elsewhere. A collective."""
    heads = {f"heads.{name}": tensor.clone() for name, tensor in engine.method.heads.state_dict().items()}
    return {name: tensor.clone() for name, tensor in (engine.state_dict() or {}).items()} | heads


def averaged(tokens: list[str], resume_in: str | None = None) -> tuple[bool, bool, bool]:
    """Whether the engine's average is the plain one of its weights after every step, whether looking at it left the
    weights as they were, and whether it is something else than they are; with a new engine after half of the steps if
    there is a folder for a checkpoint."""
    config = runs.tiny_config(*TOKENS, *tokens)
    engine = runs.start(config)
    plain = whole(engine)
    for step in range(STEPS):
        if resume_in and step == STEPS // 2:
            checkpoint.save(engine, Path(resume_in), step, {})
            engine = runs.start(config, first=False)
            checkpoint.load_newest(engine, Path(resume_in))
        runs._run(engine, range(step, step + 1))
        decay = decay_after(step + 1, 0.8, warmup=config.averaging.warmup)
        floats = {name: tensor for name, tensor in whole(engine).items() if tensor.is_floating_point()}
        get_ema_multi_avg_fn(decay)([plain[name] for name in floats], list(floats.values()), step)
    before = whole(engine)
    with engine.evaluated_weights():
        looked_at = whole(engine)
    after = whole(engine)
    return same(looked_at, plain), same(before, after), not same(before, plain)


def same(ours: dict[str, Tensor], right: dict[str, Tensor]) -> bool:
    """Equal to the last digit."""
    return ours.keys() == right.keys() and all(torch.equal(ours[name], right[name]) for name in right)


@pytest.mark.parametrize(("world_size", "stage"), [(1, 0), (2, 1), (2, 3)])
def test_it_is_the_plain_average_of_whole_weights(ranks: Callable, tmp_path: Path, world_size: int, stage: int) -> None:
    folder = str(tmp_path) if world_size == 2 else None
    found = ranks(world_size, averaged, [f"engine=zero{stage}", "averaging.warmup=false"], folder)
    assert found == [(True, True, True)] * world_size


@pytest.mark.slow
@pytest.mark.parametrize("stage", [0, 1, 2, 3])
@pytest.mark.parametrize("world_size", [1, 2])
@pytest.mark.parametrize("token", ["engine.micro_batches=2", "engine.precision=bfloat16", "optim.layer_decay=0.5"])
def test_it_is_the_plain_average_everywhere(
    ranks: Callable, tmp_path: Path, world_size: int, stage: int, token: str
) -> None:
    found = ranks(world_size, averaged, [f"engine=zero{stage}", token], str(tmp_path))
    assert found == [(True, True, True)] * world_size


def looking(tokens: list[str], look: bool) -> str:
    """The weights after a run whose average was looked at after every step, or never."""
    engine = runs.start(runs.tiny_config(*TOKENS, *tokens))
    for step in range(STEPS):
        runs._run(engine, range(step, step + 1))
        if look:
            with engine.evaluated_weights():
                engine.deepspeed.eval()
    return runs.weights_digest(engine)


@pytest.mark.parametrize("tokens", [["engine=zero2"], pytest.param(["engine=zero3"], marks=pytest.mark.slow)])
def test_looking_at_it_does_not_change_the_training(ranks: Callable, tokens: list[str]) -> None:
    assert ranks(2, looking, tokens, True)[0] == ranks(2, looking, tokens, False)[0]


def test_persisting_parameters_of_zero_3_are_averaged_too(ranks: Callable) -> None:
    keep = "engine.deepspeed.zero_optimization.stage3_param_persistence_threshold=100000"
    assert ranks(2, averaged, ["engine=zero3", keep]) == [(True, True, True)] * 2


def test_the_warm_up_bounds_the_decay() -> None:
    assert decay_after(1, 0.999, warmup=True) == 2 / 11
    assert decay_after(1, 0.999, warmup=False) == decay_after(10**6, 0.999, warmup=True) == 0.999


def lost(folder: str) -> str:
    """What is said of a checkpoint that was written without the average, listed as if it were whole."""
    engine = runs.start(runs.tiny_config("method=clip"))
    checkpoint.save(engine, Path(folder), 1, {})
    engine = runs.start(runs.tiny_config(*TOKENS), first=False)
    return runs.refusal(checkpoint.load_newest, engine, Path(folder))


def test_a_checkpoint_without_the_average_is_refused(ranks: Callable, tmp_path: Path) -> None:
    assert "does not hold the average" in ranks(1, lost, str(tmp_path))[0]
