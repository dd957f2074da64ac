"""Operations per sample: what torch counts going forward and back, less behind what is frozen; a run stays as it is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from mmpretrain.engine.flops import _attention, training_flops
from tests.engine import runs

CLIP = ("method=clip", "engine=zero0")


def counted(tokens: tuple[str, ...], both_ways: bool = True) -> tuple[float, float]:
    """Operations per sample by our count, and by torch's of a forward (and a backward)."""
    engine = runs.start(config := runs.tiny_config(*tokens))
    batch, step = runs.make_batch(0, engine.world.rank, engine.world.size), runs.step_of(0, config)
    ours = training_flops(engine, batch, step)
    batch = engine.method.prepare(engine.method.augmenter.training_inputs(batch, step), step)
    with FlopCounterMode(display=False, custom_mapping=_formulas()) as torchs:
        features = engine.method.encode(engine.method.model, batch)
        if both_ways:
            torch.stack([tensor.sum() for tensor in features.tensors]).sum().backward()
    return ours, torchs.get_total_flops() / len(batch)


def _formulas() -> dict[Any, Callable[..., int]]:
    """For attention on CPUs, which torch leaves out: forward, and twice as much backward."""

    def forward(query: tuple[int, ...], key: tuple[int, ...], value: tuple[int, ...], *_: object, **__: object) -> int:
        return _attention(*(torch.empty(shape, device="meta") for shape in (query, key, value)))

    def back(
        _: object, query: tuple[int, ...], key: tuple[int, ...], value: tuple[int, ...], *rest: object, **__: object
    ) -> int:
        return 2 * forward(query, key, value)

    aten = torch.ops.aten
    return {
        aten._scaled_dot_product_flash_attention_for_cpu: forward,
        aten._scaled_dot_product_flash_attention_for_cpu_backward: back,
    }


@pytest.mark.parametrize(
    "tokens",
    [CLIP, (*CLIP, "model.encoders.left.freeze=true"), ("method=m3col", "engine=zero0")],
    ids=["clip", "frozen", "m3col"],
)
def test_the_count_is_that_of_a_real_forward_and_backward(ranks: Callable, tokens: tuple[str, ...]) -> None:
    ((ours, torchs),) = ranks(1, counted, tokens)
    assert ours == pytest.approx(torchs, rel=0.02)  # the first layers' inputs need no gradient


def test_nothing_but_forward_counts_for_what_is_frozen(ranks: Callable) -> None:
    frozen = tuple(f"model.encoders.{name}.freeze=true" for name in ("left", "right", "caption"))
    ((ours, forward),) = ranks(1, counted, (*CLIP, *frozen), False)
    assert forward < ours < 1.2 * forward  # projections learn


def losses_and_weights(stage: int, count: bool) -> tuple[list[float], str]:
    """Of three steps, with a count before the first."""
    engine = runs.start(config := runs.tiny_config("method=m3col", f"engine=zero{stage}"))
    losses: list[Tensor] = []
    for index in range(3):
        batch = runs.make_batch(index, engine.world.rank, engine.world.size)
        if count and index == 0:
            assert training_flops(engine, batch, runs.step_of(0, config)) > 0
        losses.append(engine.step(batch, runs.step_of(index, config)).losses["loss"])
    return [float(loss) for loss in losses], runs.weights_digest(engine)


@pytest.mark.parametrize(
    "stage", [pytest.param(0, marks=pytest.mark.slow), 1, pytest.param(2, marks=pytest.mark.slow), 3]
)
def test_counting_changes_no_bit_of_a_run(ranks: Callable, stage: int) -> None:
    assert ranks(2, losses_and_weights, stage, True) == ranks(2, losses_and_weights, stage, False)
