"""Hard negatives in a step: micro-batches have the gradients of the whole batch, and the diagnostics tell."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from mmpretrain.config.negatives import NegativesConfig
from mmpretrain.config.objective import HardNegatives
from mmpretrain.config.root import Config
from mmpretrain.data.batch import Batch
from mmpretrain.distributed.world import World
from mmpretrain.engine.accumulate import MicroBatches
from mmpretrain.methods.base import Features
from tests.methods.parity import run_step
from tests.methods.toys import make_batch, make_config, make_method, make_step


def with_negatives(margin: float | None = None, whose: HardNegatives = HardNegatives.all) -> Config:
    config = make_config("clip")
    first, *others = config.data.modalities
    entry = replace(config.data.modalities[first], negatives=NegativesConfig(count=3))
    data = replace(config.data, modalities={first: entry} | {name: config.data.modalities[name] for name in others})
    objective = replace(config.objective, false_negative_margin=margin, hard_negatives=whose)
    return replace(config, data=data, objective=objective)


def gradients(count: int) -> dict[str, Tensor]:
    """Of the model and the temperature, with so many micro-batches."""
    config = with_negatives(margin=0.1)
    method = make_method(config)

    def encode(number: int, part: Batch) -> Features:
        return method.encode(method.model, part)

    parts = MicroBatches(make_batch(config), count, encode)
    parts.objective(lambda features: method.objective(features, make_step(), World.single()))
    parts.backward(lambda product, last: product.backward())
    named = [*method.model.named_parameters(), *method.heads.named_parameters()]
    return {name: p.grad for name, p in named if p.grad is not None}


def test_micro_batches_have_the_gradients_of_the_whole_batch() -> None:
    whole, parts = gradients(1), gradients(4)
    assert whole.keys() == parts.keys() and any("logit_scale" in name for name in whole)
    for name, exact in whole.items():
        torch.testing.assert_close(parts[name], exact, rtol=1e-10, atol=1e-14)


def test_each_option_acts_and_the_share_that_is_left_out_is_told() -> None:
    plain, everyones = run_step(make_config("clip"), 0.0), run_step(with_negatives(), 0.0)
    own, margin = run_step(with_negatives(whose=HardNegatives.own), 0.0), run_step(with_negatives(0.1), 0.0)
    assert len({step.values["total"] for step in (plain, everyones, own, margin)}) == 4
    (share,) = (value for name, value in margin.values.items() if name.startswith("masked/"))
    assert 0 < share < 1
    assert not any(name.startswith("masked/") for name in everyones.values)
