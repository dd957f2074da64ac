"""Micro-batches under DeepSpeed ZeRO 0-3: the run of one process in one piece, in losses, norms and weights."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.engine import runs

STEPS = 20
# Steps in proportion to the gradients: Adam as it is would hide any constant factor.
PROPORTIONAL = ["optim.eps=1", "optim.lr=0.1", "optim.clip=null"]
CLIPPED = ["optim.eps=1", "optim.lr=1", "optim.clip=0.1"]
FROZEN = [*PROPORTIONAL, "model.encoders.left.freeze=true"]
DROPOUT = [
    f"model.encoders.{name}.config.{key}=0.2"
    for name in ("left", "right", "caption")
    for key in ("hidden_dropout_prob", "attention_probs_dropout_prob")
]


@pytest.fixture(scope="module")
def reference(ranks: Callable) -> Callable[..., runs.Outcome]:
    """The outcome of one process at stage 0 in one piece, by config."""
    known: dict[tuple[str, ...], runs.Outcome] = {}

    def outcome(steps: int, *tokens: str) -> runs.Outcome:
        key = (str(steps), *tokens)
        if key not in known:
            known[key] = ranks(1, runs.outcome, runs.tiny_config(*tokens, "engine=zero0"), steps)[0]
        return known[key]

    return outcome


@pytest.mark.parametrize(
    ("method", "stage", "count", "tokens"),
    [
        ("clip", 0, 4, PROPORTIONAL),
        ("clip", 1, 2, CLIPPED),
        ("m3col", 2, 4, PROPORTIONAL),
        ("clip", 1, 2, [*FROZEN, "engine.coalesce_reduction=true"]),
        ("clip", 3, 2, CLIPPED),
        pytest.param("clip", 3, 2, [*FROZEN, "engine.coalesce_reduction=true"], marks=pytest.mark.slow),
    ],
)
def test_same_run(
    ranks: Callable, reference: Callable[..., runs.Outcome], method: str, stage: int, count: int, tokens: list[str]
) -> None:
    changed = [f"method={method}", *tokens, f"engine=zero{stage}", f"engine.micro_batches={count}"]
    right = reference(8, f"method={method}", *(t for t in tokens if "coalesce" not in t))
    runs.check_equal(ranks(2, runs.outcome, runs.tiny_config(*changed), 8)[0], right)
    assert right.losses[0] != right.losses[-1]


REDUCTIONS = [(stage, count, False) for stage in range(4) for count in (1, 2, 4)]
REDUCTIONS += [(stage, count, True) for stage in (1, 2, 3) for count in (2, 4)]


@pytest.mark.slow
@pytest.mark.parametrize("tokens", [[], CLIPPED])
@pytest.mark.parametrize(("stage", "count", "coalesce"), REDUCTIONS)
@pytest.mark.parametrize("method", ["clip", "m3col"])
def test_same_run_everywhere(
    ranks: Callable,
    reference: Callable[..., runs.Outcome],
    method: str,
    stage: int,
    count: int,
    coalesce: bool,
    tokens: list[str],
) -> None:
    changed = [f"engine=zero{stage}", f"engine.micro_batches={count}", f"engine.coalesce_reduction={coalesce}".lower()]
    ours = ranks(2, runs.outcome, runs.tiny_config(f"method={method}", *tokens, *changed), STEPS)[0]
    right = reference(STEPS, f"method={method}", *tokens)
    if tokens:
        runs.check_equal(ours, right)
    else:  # where gradients vanish, Adam's first steps have the size of the rate and the sign of rounding
        assert max(abs(a - b) for a, b in zip(ours.losses, right.losses, strict=True)) <= 1e-5


def test_resume_is_bit_equal_with_dropout(ranks: Callable, tmp_path: Path) -> None:
    tokens = ["method=m3col", "engine=zero2", "engine.micro_batches=2", *DROPOUT]
    straight, resumed, losses, losses_again = ranks(2, runs.train_and_resume, tokens, 8, str(tmp_path))[0]
    assert straight == resumed and losses == losses_again


CHECKPOINTED = [f"model.encoders.{name}.checkpointing=true" for name in ("left", "right", "caption")]


def train_and_count(tokens: list[str]) -> tuple[list[float], str, int]:
    """Losses of three steps, the weights after them, and how often a step runs the caption's one layer."""
    config, calls = runs.tiny_config(*tokens), 0

    def count(*_: object) -> None:
        nonlocal calls
        calls += 1

    engine = runs.start(config)
    layer = engine.method.model.get_submodule("encoders.caption.backbone.encoder.layer.0.attention")
    layer.register_forward_hook(count)
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    reports = [engine.step(runs.make_batch(i, rank, size), runs.step_of(i, config)) for i in range(3)]
    return [report.losses["loss"].item() for report in reports], runs.weights_digest(engine), calls // 3


@pytest.mark.parametrize("stage", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_checkpointing_replays_dropout_in_every_micro_batch(ranks: Callable, stage: int) -> None:
    """A micro-batch is encoded for its features, again with a graph, and, checkpointed, once more to go back."""
    tokens = ["method=clip", f"engine=zero{stage}", "engine.micro_batches=2", *PROPORTIONAL, *DROPOUT]
    kept, again = (ranks(2, train_and_count, [*tokens, *more]) for more in ([], CHECKPOINTED))
    assert [outcome[:2] for outcome in again] == [outcome[:2] for outcome in kept]
    assert [outcome[2] for outcome in (*kept, *again)] == [4, 4, 6, 6]
    other = ranks(2, train_and_count, [*tokens, *CHECKPOINTED, "seed=1"])
    assert other[0][0] != kept[0][0]


def seeds(count: int) -> list[list[int]]:
    """By step, the seeds at which this rank encodes."""
    config = runs.tiny_config("method=clip", "engine=zero1", f"engine.micro_batches={count}", *DROPOUT)
    engine = runs.start(config)
    seen: list[list[int]] = []

    def watched(encode: Callable[..., object], *arguments: object) -> object:
        seen[-1].append(torch.initial_seed())
        return encode(*arguments)

    runs.wrap(engine.method, "encode", watched)
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    for index in range(2):
        seen.append([])
        engine.step(runs.make_batch(index, rank, size), runs.step_of(index, config))
    return seen


def test_dropout_differs_between_micro_batches_ranks_and_steps_and_not_between_passes(ranks: Callable) -> None:
    steps = [step for rank in ranks(2, seeds, 2) for step in rank]
    assert all(step[:2] == step[2:] for step in steps)
    assert len({seed for step in steps for seed in step}) == 2 * 2 * 2
    assert ranks(2, seeds, 1)[0][0] == steps[0][:1]  # one piece draws as the first micro-batch does
