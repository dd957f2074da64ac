"""CoMM under DeepSpeed ZeRO 0-3 on 1 and 2 ranks: one run, whatever cuts it; also where samples lack modalities."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from mmpretrain.data.batch import Batch
from mmpretrain.engine.engine import Engine
from tests.engine import runs
from tests.rank_pool import Ranks

STEPS = 20
# Batch norm over 16 nearly equal embeddings magnifies rounding: a warm temperature, and steps in proportion to the
# gradients, since Adam as it is would make whole steps of what only rounds.
TOKENS = (
    "method=comm",
    "method.head_hidden=32",
    "method.head_width=16",
    "method.temperature=0.5",
    "model.fusion.width=16",
    "model.fusion.heads=2",
    "optim.eps=1",
    "optim.lr=0.01",
)
CODE = ("method.pairing=code",)
LACKING = ("data.modalities.left.optional=true", "data.modalities.caption.optional=true")


def lacking_some(batch: Batch) -> Batch:
    """``batch`` whose samples lack what is optional: every third its left half, another third its caption."""
    left, caption = batch.inputs["left"], batch.inputs["caption"]
    inputs = {
        "left": left | {"present": batch.sample_ids % 3 != 0},
        "caption": caption | {"present": batch.sample_ids % 3 != 1},
    }
    return replace(batch, inputs=batch.inputs | inputs)


def with_missing(function: Callable, *arguments: object) -> object:
    """``function`` of tests/engine/runs.py on batches whose samples lack modalities."""
    make_batch = runs.make_batch
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runs, "make_batch", lambda *given, **options: lacking_some(make_batch(*given, **options)))
        return function(*arguments)


def smooth(engine: Engine) -> None:
    """Put SiLU in the place of the head's ReLU.

    A unit that rounding puts on the other side of its kink (one in a run, or none) moves the gradient by a thousandth.
    """
    head: Any = engine.method.heads["projection"]
    for number, layer in enumerate(head):
        if isinstance(layer, nn.ReLU):
            head[number] = nn.SiLU()


@pytest.fixture(scope="module")
def reference(ranks: Ranks) -> Callable[..., runs.Outcome]:
    """The outcome of one process at stage 0, by tokens."""
    known: dict[tuple[str, ...], runs.Outcome] = {}

    def outcome(*tokens: str) -> runs.Outcome:
        if tokens not in known:
            known[tokens] = run(ranks, 1, *tokens, "engine=zero0")
        return known[tokens]

    return outcome


def run(ranks: Ranks, world_size: int, *tokens: str) -> runs.Outcome:
    """What training on so many ranks comes to."""
    config = runs.tiny_config(*TOKENS, *tokens)
    if config.data.modalities["left"].optional:
        return ranks(world_size, with_missing, runs.outcome, config, STEPS, smooth)[0]
    return ranks(world_size, runs.outcome, config, STEPS, smooth)[0]


def check(ranks: Ranks, reference: Callable[..., runs.Outcome], world_size: int, stage: int, *tokens: str) -> None:
    """Ranks and ZeRO stage change nothing of the reference, which learns."""
    right = reference(*(token for token in tokens if "micro_batches" not in token))
    runs.check_equal(run(ranks, world_size, *tokens, f"engine=zero{stage}"), right)
    assert right.losses[-1] < right.losses[0] - 0.05


@pytest.mark.parametrize(
    ("stage", "tokens"),
    [(2, ()), (1, (*CODE, *LACKING, "engine.micro_batches=2"))],
)
def test_same_run(ranks: Ranks, reference: Callable, stage: int, tokens: tuple[str, ...]) -> None:
    check(ranks, reference, 2, stage, *tokens)


@pytest.mark.slow
@pytest.mark.parametrize("stage", [0, 1, 2, 3])
@pytest.mark.parametrize("world_size", [1, 2])
@pytest.mark.parametrize("tokens", [(), CODE, LACKING, (*CODE, *LACKING)])
def test_same_run_everywhere(
    ranks: Ranks, reference: Callable, world_size: int, stage: int, tokens: tuple[str, ...]
) -> None:
    check(ranks, reference, world_size, stage, *tokens)
    check(ranks, reference, world_size, stage, *tokens, "engine.micro_batches=2")


@pytest.mark.parametrize("stage", [1, pytest.param(3, marks=pytest.mark.slow)])
def test_resuming_is_bit_equal(ranks: Ranks, stage: int, tmp_path: Path) -> None:
    tokens = [*TOKENS, *CODE, *LACKING, f"engine=zero{stage}"]
    results = ranks(2, with_missing, runs.train_and_resume, tokens, 4, str(tmp_path))
    straight, resumed, losses, losses_again = results[0]
    assert straight and straight == resumed and losses == losses_again
