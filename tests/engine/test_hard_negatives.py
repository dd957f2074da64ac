"""Hard negatives under the engine: their texts go through one encoder alone, at every stage of ZeRO and in parts."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from mmpretrain.data.batch import NEGATIVES, PRESENT, Batch
from mmpretrain.engine.engine import mean_over_ranks
from tests.engine import runs

COUNT = 2
TOKENS = ["method=clip", f"data.modalities.caption.negatives.count={COUNT}", "objective.false_negative_margin=0.1"]
STEPS = 4


def make_batch(index: int, rank: int, world_size: int) -> Batch:
    """With hard negatives of captions, of which some samples have fewer than others."""
    batch = runs.make_batch(index, rank, world_size)
    texts = (runs._rows(batch.sample_ids, "negatives", COUNT, 16).abs() * 4).long().clamp(max=9)
    there = torch.arange(COUNT) < (batch.sample_ids % (COUNT + 1))[:, None]
    view = {"input_ids": texts, "attention_mask": torch.ones_like(texts), PRESENT: there}
    return replace(batch, views={NEGATIVES: {"caption": view}})


def curve(tokens: list[str]) -> list[float]:
    """The loss of each step, averaged over the ranks."""
    config, losses = runs.tiny_config(*tokens), []
    engine = runs.start(config)
    rank, world_size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    for index in range(STEPS):
        report = engine.step(make_batch(index, rank, world_size), runs.step_of(index, config))
        losses.append(mean_over_ranks({"loss": report.losses["loss"]}, engine.world)["loss"])
    return losses


@pytest.fixture(scope="module")
def reference(ranks: Callable) -> list[float]:
    """The curve of one process at stage 0."""
    losses: list[float] = ranks(1, curve, [*TOKENS, "engine=zero0"])[0]
    return losses


def check(ranks: Callable, reference: list[float], world_size: int, *tokens: str) -> None:
    """Every rank's curve is the reference's."""
    for losses in ranks(world_size, curve, [*TOKENS, *tokens]):
        assert losses == pytest.approx(reference, abs=1e-5)


def test_same_curve_on_two_ranks_of_zero_3_in_micro_batches(ranks: Callable, reference: list[float]) -> None:
    check(ranks, reference, 2, "engine=zero3", "engine.micro_batches=2")


@pytest.mark.slow
@pytest.mark.parametrize("stage", [0, 1, 2, 3])
@pytest.mark.parametrize("micro", [1, 2])
@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_same_curve_everywhere(
    ranks: Callable, reference: list[float], world_size: int, stage: int, micro: int
) -> None:
    check(ranks, reference, world_size, f"engine=zero{stage}", f"engine.micro_batches={micro}")
