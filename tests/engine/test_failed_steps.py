"""Steps that cannot succeed: they end with such a norm, after one attempt, and leave weights and scale as they were."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest

from mmpretrain.engine.engine import Engine
from mmpretrain.methods.base import Features, Losses
from tests.engine import runs

Poison = Callable[[Engine], None]


@dataclass
class Failed:
    """What a step did. encodes: how often the model ran. before, after: digests of all weights, on rank 0."""

    encodes: int
    norm: float
    scale: tuple[float, int] | None
    before: str
    after: str
    heads_gradients: int


def failed_step(tokens: list[str], poison: Poison) -> Failed:
    """One step in which ``poison`` works on rank 1 alone; no rank sees features of another."""
    engine = runs.start(runs.tiny_config("method=clip", "objective.negatives=local", *tokens))
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    encodes = []

    def counted(encode: Callable[..., Features], *arguments: object) -> Features:
        encodes.append(arguments)
        return encode(*arguments)

    runs.wrap(engine.method, "encode", counted)
    if rank == size - 1:
        poison(engine)
    before = runs.weights_digest(engine)
    norm = engine.step(runs.make_batch(0, rank, size), runs.step_of(0, engine.config)).grad_norm
    scale = (engine.loss_scale.value, engine.loss_scale.good_steps) if engine.loss_scale else None
    gradients = sum(p.grad is not None for p in engine.method.heads.parameters())
    return Failed(len(encodes), norm, scale, before, runs.weights_digest(engine), gradients)


def poison_features(engine: Engine) -> None:
    """One modality's embeddings are not numbers."""

    def poisoned(encode: Callable[..., Features], *arguments: object) -> Features:
        features = encode(*arguments)
        return replace(features, embeds=features.embeds | {"left": features.embeds["left"] * math.nan})

    runs.wrap(engine.method, "encode", poisoned)


def poison_loss(engine: Engine) -> None:
    """The loss is infinite."""

    def poisoned(objective: Callable[..., Losses], *arguments: object) -> Losses:
        losses = objective(*arguments)
        return replace(losses, terms={name: term * math.inf for name, term in losses.terms.items()})

    runs.wrap(engine.method, "objective", poisoned)


def check(ranks: Callable, precision: str, stage: int, count: int, poison: Poison) -> None:
    """Every rank sees the failure at its first attempt, and no weight or scale has changed."""
    tokens = [f"engine.precision={precision}", f"engine=zero{stage}", f"engine.micro_batches={count}"]
    for failed in ranks(2, failed_step, tokens, poison):
        assert failed.encodes == (1 if count == 1 else 2 * count)
        assert not math.isfinite(failed.norm)
        assert failed.scale == ((2.0**16, 0) if precision == "float16" else None)
        assert failed.before == failed.after
        assert failed.heads_gradients == 0


@pytest.mark.parametrize(
    ("precision", "stage", "count", "poison"),
    [
        ("float16", 1, 1, poison_features),
        ("float16", 1, 2, poison_loss),
        ("float16", 0, 1, poison_loss),
        ("float32", 0, 1, poison_loss),
        ("float32", 1, 2, poison_features),
    ],
)
def test_one_attempt_that_changes_nothing(
    ranks: Callable, precision: str, stage: int, count: int, poison: Poison
) -> None:
    check(ranks, precision, stage, count, poison)


@pytest.mark.slow
@pytest.mark.parametrize("poison", [poison_features, poison_loss])
@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("stage", [0, 1, 2, 3])
@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_one_attempt_that_changes_nothing_everywhere(
    ranks: Callable, precision: str, stage: int, count: int, poison: Poison
) -> None:
    check(ranks, precision, stage, count, poison)
