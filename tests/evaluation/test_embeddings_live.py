"""Evaluation of the live DeepSpeed engine in the midst of training."""

from __future__ import annotations

import os
from collections.abc import Callable

import numpy as np
import pytest

from mmpretrain.data.batch import Batch
from mmpretrain.data.step import Step
from mmpretrain.engine.engine import Engine
from mmpretrain.evaluation.embeddings import Embeddings, embed_split
from tests.engine import runs


def train_and_embed(tokens: list[str], looks: int) -> tuple[list[float], list[Embeddings]]:
    """Losses of four steps, with the first ``looks`` of them followed by an evaluation of the live engine."""
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    config = runs.tiny_config(*tokens)
    engine: Engine = runs.start(config)
    losses, found = [], []
    for index in range(4):
        report = engine.step(runs.make_batch(index, rank, size), Step(index, index / 2, 4.0, config.seed))
        losses.append(float(engine.world.all_reduce_sum(report.losses["loss"].detach().reshape(1))))
        if index < looks:
            batches: list[Batch] = [runs.make_batch(9, rank, size, repeat=False)]
            found.append(embed_split(engine.deepspeed, batches, engine.world, engine.device))
    return losses, found


@pytest.mark.parametrize("stage", [1, 3])
def test_live_engine_is_embedded_and_training_goes_on_as_if_not(ranks: Callable, stage: int) -> None:
    tokens = ["method=clip", f"engine=zero{stage}"]
    (undisturbed, _), _ = ranks(2, train_and_embed, tokens, 0)
    (losses, found), (_, elsewhere) = ranks(2, train_and_embed, tokens, 3)
    assert losses == undisturbed
    assert len(found) == 3 and all(len(embeddings) == runs.GLOBAL_BATCH for embeddings in found)
    assert np.array_equal(found[-1].embeds["left"], elsewhere[-1].embeds["left"])
    assert not np.allclose(found[0].embeds["left"], found[-1].embeds["left"])
