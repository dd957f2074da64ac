"""A step whose losses were not to look, and became NaN, is taken again with looks: nothing of the first try is left."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor

from mmpretrain.config.model import EncoderConfig, Pool
from mmpretrain.config.root import Config
from mmpretrain.data.step import Step
from mmpretrain.distributed.world import World
from mmpretrain.methods.base import Features, Losses
from tests.engine import runs
from tests.small_runs import OTHERS

COMM = ["method=comm", "method.head_hidden=32", "method.head_width=16", "model.fusion.width=16", "model.fusion.heads=2"]
STEPS = 2


@dataclass
class Course:
    """Of a run. looked: of each call of the objective, whether it could look. state: all weights, running statistics
    and running moments, by name, on rank 0."""

    looked: list[bool]
    norms: list[float]
    state: dict[str, Tensor]


def config_of(tokens: list[str]) -> Config:
    """The tiny config; CoMM's with a batch norm in the model, too."""
    config = runs.tiny_config(*tokens)
    if config.method.name == "comm":
        settings = {"embedding_size": 8, "hidden_sizes": [8], "depths": [1], "layer_type": "basic", "num_channels": 1}
        config.model.encoders["left"] = EncoderConfig(architecture="resnet", config=settings, pool=Pool.mean)
    return config


def course(tokens: list[str], *, ahead: bool) -> Course:
    """Two steps; ``ahead``: losses must not look, and are NaN where they do not."""
    config = config_of(tokens)
    engine = runs.start(config)
    engine.world = replace(engine.world, ahead=ahead)
    looked: list[bool] = []

    def not_ahead(objective: Callable[..., Losses], features: Features, step: Step, world: World) -> Losses:
        looked.append(not world.ahead)
        # As it would be with what a loss may not look at: everything is computed, and the result is not a number.
        losses = objective(features, step, world)
        factor = math.nan if world.ahead else 1.0
        return replace(losses, terms={name: term * factor for name, term in losses.terms.items()})

    runs.wrap(engine.method, "objective", not_ahead)
    rank, size, norms = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]), []
    for index in range(STEPS):
        batch = runs.make_batch(index, rank, size, modalities=config.data.modalities)
        norms.append(engine.step(batch, runs.step_of(index, config)).grad_norm)
    heads = {f"heads.{name}": tensor for name, tensor in engine.method.heads.state_dict().items()}
    return Course(looked, norms, (engine.state_dict() or {}) | heads)


def both(tokens: list[str]) -> tuple[Course, Course]:
    """A run that always looks, and one that looks only once it must."""
    return course(tokens, ahead=False), course(tokens, ahead=True)


@pytest.mark.parametrize(
    ("tokens", "remembered"),
    [
        ([*COMM, "engine=zero0"], "projection.1.running_mean"),
        pytest.param([*COMM, "engine=zero1"], "projection.1.running_mean", marks=pytest.mark.slow),
        ([*OTHERS["mucmm"], "engine=zero0"], "moments.covariance"),
    ],
)
def test_a_step_that_is_taken_again_is_the_one_that_looks(ranks: Callable, tokens: list[str], remembered: str) -> None:
    (always, late), *_ = ranks(2, both, tokens)
    assert always.looked == [True] * STEPS and late.looked == [False, True] * STEPS
    assert all(math.isfinite(norm) for norm in always.norms)
    assert late.norms == pytest.approx(always.norms, rel=1e-6)
    assert late.state.keys() == always.state.keys()
    names = [name for name in always.state if name.endswith(remembered)]
    assert names and all(always.state[name].abs().sum() > 0 for name in names)
    for name, tensor in always.state.items():
        torch.testing.assert_close(late.state[name], tensor, rtol=1e-6, atol=1e-7, msg=name)
