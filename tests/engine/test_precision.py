"""Encoders in bfloat16 and float16 under ZeRO 0-3: near plain autocast; weights, heads and norms as in float32."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from mmpretrain.config.root import Config
from mmpretrain.distributed.world import World
from mmpretrain.engine import loss_scale
from mmpretrain.engine.engine import Engine
from mmpretrain.engine.loss_scale import LossScale
from mmpretrain.engine.optimizer import build_optimizer, parameter_groups
from mmpretrain.evaluation.embeddings import embed_split
from mmpretrain.methods.build import build_method
from tests.engine import runs

STEPS = 8
# Adam turns rounding of small gradients into whole steps, which add up in two runs alike in all but that; eps damps it.
PLAIN = ["optim.schedule=constant", "optim.warmup_samples=0", "optim.clip=1", "optim.eps=1", "optim.lr=0.1"]
# Steps in proportion to the gradients, mostly clipped: gradients that are still scaled would show at once.
PROPORTIONAL = ["optim.eps=1", "optim.lr=1", "optim.clip=0.1"]


def config_of(precision: str, stage: int, *tokens: str) -> Config:
    """The tiny config at this precision and stage."""
    return runs.tiny_config(*tokens, f"engine.precision={precision}", f"engine=zero{stage}")


def autocast_losses(config: Config, precision: str) -> list[float]:
    """Losses of plain PyTorch on one process: torch.autocast around the encoders, and nothing of DeepSpeed."""
    torch.manual_seed(config.seed)
    method = build_method(config)
    modules = (method.model, method.heads)
    optimizers = [build_optimizer(g, config.optim) for m in modules if (g := parameter_groups(m, config.optim, {}))]
    losses = []
    for index in range(STEPS):
        step = runs.step_of(index, config)
        batch = method.prepare(runs.make_batch(index, 0, 1), step)
        with torch.autocast("cpu", dtype=getattr(torch, precision)):
            features = method.encode(method.model, batch)
        total = method.objective(features, step, World.single()).total
        total.backward()
        for module in modules:
            torch.nn.utils.clip_grad_norm_(module.parameters(), config.optim.clip or float("inf"))
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        method.clamp_()
        losses.append(total.item())
    return losses


def check_near_autocast(ranks: Callable, method: str, precision: str, stage: int, count: int) -> None:
    """The engine's losses are near those of torch's autocast, and not those of float32."""
    tokens = [f"method={method}", *PLAIN, f"engine.micro_batches={count}"]
    config = config_of(precision, stage, *tokens)
    right = autocast_losses(config, precision)
    ours = ranks(2, runs.outcome, config, STEPS)[0].losses
    assert ours == pytest.approx(right, rel=5e-3)
    assert ours != ranks(2, runs.outcome, config_of("float32", stage, *tokens), STEPS)[0].losses


@pytest.mark.parametrize(("precision", "stage", "count"), [("bfloat16", 1, 2), ("float16", 2, 1)])
def test_losses_are_near_plain_autocast(ranks: Callable, precision: str, stage: int, count: int) -> None:
    check_near_autocast(ranks, "clip", precision, stage, count)


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("stage", [0, 1, 2, 3])
@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
@pytest.mark.parametrize("method", ["clip", "m3col"])
def test_losses_are_near_plain_autocast_everywhere(
    ranks: Callable, method: str, precision: str, stage: int, count: int
) -> None:
    check_near_autocast(ranks, method, precision, stage, count)


@pytest.mark.parametrize(
    ("precision", "stage"),
    [
        ("bfloat16", 1),
        ("float16", 0),
        ("float16", 3),
        pytest.param("bfloat16", 3, marks=pytest.mark.slow),
        pytest.param("float16", 1, marks=pytest.mark.slow),
    ],
)
def test_norms_clipping_and_heads_are_those_of_float32(ranks: Callable, precision: str, stage: int) -> None:
    right = ranks(2, runs.outcome, config_of("float32", stage, "method=clip", *PROPORTIONAL), 4)[0]
    ours = ranks(2, runs.outcome, config_of(precision, stage, "method=clip", *PROPORTIONAL), 4)[0]
    assert ours.norms == pytest.approx(right.norms, rel=5e-2)
    assert {weight.dtype for weight in ours.weights.values()} == {torch.float32}
    for name, weight in right.weights.items():
        torch.testing.assert_close(ours.weights[name], weight, rtol=1e-2, atol=2e-3, msg=name)


@pytest.mark.parametrize("stage", [1, pytest.param(3, marks=pytest.mark.slow)])
def test_micro_batches_are_the_whole_batch_within_rounding(ranks: Callable, stage: int) -> None:
    """Weights are no further apart than a few roundings (of 1/256) of the way that they have come."""
    tokens = ["method=clip", *PROPORTIONAL, "optim.clip=null", "optim.lr=0.1"]
    start, *outcomes = (
        ranks(2, runs.outcome, config_of("bfloat16", stage, *tokens, f"engine.micro_batches={count}"), steps)[0]
        for count, steps in ((1, 0), (1, 4), (2, 4))
    )
    right, ours = outcomes
    assert ours.losses == pytest.approx(right.losses, rel=5e-3)
    assert ours.norms == pytest.approx(right.norms, rel=2**-6)
    for name, weight in right.weights.items():
        way = (weight - start.weights[name]).norm()
        assert (ours.weights[name] - weight).norm() <= 2**-6 * way + 1e-5, name


def too_large(engine: Engine) -> None:
    """A loss scale at which every gradient overflows (M3CoL's do at the usual start already)."""
    assert engine.loss_scale is not None
    engine.loss_scale.value = 2.0**20


@pytest.mark.parametrize(
    ("stage", "count"),
    [(0, 1), (2, 2), pytest.param(0, 2, marks=pytest.mark.slow), pytest.param(3, 1, marks=pytest.mark.slow)],
)
def test_an_overflow_takes_the_step_again_at_half_the_scale(ranks: Callable, stage: int, count: int) -> None:
    config = config_of("float16", stage, "method=m3col", *PROPORTIONAL, f"engine.micro_batches={count}")
    right = ranks(2, runs.outcome, config, 3)[0]
    ours = ranks(2, runs.outcome, config, 3, too_large)[0]
    assert ours.scale == right.scale and ours.scale < loss_scale.START
    assert ours.losses == pytest.approx(right.losses, rel=1e-3)
    assert ours.norms == pytest.approx(right.norms, rel=1e-2)
    for name, weight in right.weights.items():
        torch.testing.assert_close(ours.weights[name], weight, rtol=1e-2, atol=1e-3, msg=name)


def test_the_scale_doubles_after_many_good_steps_and_has_a_floor() -> None:
    scale = LossScale(4.0)
    for _ in range(loss_scale.PATIENCE):
        assert scale.value == 4.0
        scale.taken()
    assert scale == LossScale(8.0, 0)
    assert [scale.lower() for _ in range(4)] == [True, True, True, False] and scale.value == 1.0


def resume(precision: str, stage: int, folder: str) -> tuple[str, str, list[float], list[float]]:
    """As runs.train_and_resume, with a scale that has just grown."""
    loss_scale.PATIENCE = 3
    try:
        return runs.train_and_resume([*PLAIN, f"engine.precision={precision}", f"engine=zero{stage}"], 8, folder)
    finally:
        loss_scale.PATIENCE = 2000


@pytest.mark.parametrize(("precision", "stage"), [("float16", 2), ("bfloat16", 1)])
def test_resume_is_bit_equal(ranks: Callable, tmp_path: Path, precision: str, stage: int) -> None:
    straight, resumed, losses, losses_again = ranks(2, resume, precision, stage, str(tmp_path))[0]
    assert straight == resumed and losses == losses_again


def forward_and_embed(precision: str, stage: int) -> tuple[np.ndarray, np.ndarray]:
    """This rank's embeddings by a training forward, and those of all ranks by an evaluation."""
    config = config_of(precision, stage, "method=clip")
    engine = runs.start(config)
    batch = runs.make_batch(0, int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]), repeat=False)
    trained = engine.method.encode(engine.deepspeed, batch).embeds["left"].detach().float().numpy()
    return trained, embed_split(engine.deepspeed, [batch], engine.world, engine.device).embeds["left"]


@pytest.mark.parametrize(("precision", "stage"), [("bfloat16", 1), ("float16", 3)])
def test_evaluation_computes_as_training_does(ranks: Callable, precision: str, stage: int) -> None:
    results = ranks(2, forward_and_embed, precision, stage)
    whole = np.concatenate([trained for trained, _ in results])
    for _, embedded in results:
        assert embedded.dtype == np.float32 and np.array_equal(embedded, whole)
    assert not np.array_equal(whole, ranks(2, forward_and_embed, "float32", stage)[0][1])
