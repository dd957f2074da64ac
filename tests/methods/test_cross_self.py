"""Cross+Self as a method: its value at collapse, its views, and what goes through which head."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch

from mmpretrain.config.methods.names import CrossInputs, CrossLoss, CrossSelfConfig
from mmpretrain.data.batch import Batch
from mmpretrain.distributed.world import World
from mmpretrain.methods.base import Features, Method
from tests.methods.toys import make_batch, make_config, make_method, make_step
from tests.submodules import linear_layers

HEADS: dict[str, Any] = {"hidden": 8, "width": 6}


def start(**settings: Any) -> tuple[Method, Batch]:
    """The method on three modalities, and its prepared batch."""
    config = make_config("cross_self", 3, **{**HEADS, **settings})
    method = make_method(config)
    return method, method.prepare(make_batch(config), make_step())


def encoded(method: Method, batch: Batch) -> Features:
    """The features of the batch."""
    return method.encode(method.model, batch)


def test_collapse_is_the_log_of_all_others_for_every_term() -> None:
    method, batch = start(self_weight=0.25)
    for head in method.heads.values():
        last = linear_layers(head)[-1]
        torch.nn.init.zeros_(last.weight)
        torch.nn.init.ones_(last.bias)
    features = replace(encoded(method, batch), sample_ids=torch.arange(len(batch)))
    losses = method.objective(features, make_step(), World.single())
    each = math.log(2 * len(batch) - 1)
    values = {name: term.item() for name, term in losses.terms.items()}
    assert values == pytest.approx({"cross": each, "self": 3 * each}, rel=1e-12)
    assert losses.total.item() == pytest.approx((1 + 0.25 * 3) * each, rel=1e-12)


def test_views_differ_from_one_another_and_between_epochs_but_not_between_calls() -> None:
    method, batch = start()
    first, second = (batch.views[name]["mrna"]["values"] for name in ("first", "second"))
    assert not torch.equal(first, second)
    plain = make_batch(make_config("cross_self", 3))
    assert torch.equal(batch.inputs["mrna"]["values"], plain.inputs["mrna"]["values"])
    again = method.prepare(plain, make_step()).views["first"]["mrna"]["values"]
    later = replace(plain, positions=plain.positions + 100)
    assert torch.equal(first, again)
    assert not torch.equal(first, method.prepare(later, make_step()).views["first"]["mrna"]["values"])


def test_without_self_terms_no_view_is_made() -> None:
    method, batch = start(self_weight=0.0)
    assert not batch.views and not CrossSelfConfig(self_weight=0.0).augments and CrossSelfConfig().augments
    losses = method.objective(encoded(method, batch), make_step(), World.single())
    assert losses.terms.keys() == {"cross"} and losses.diagnostics.keys() == {
        "accuracy/mrna-methylation",
        "accuracy/mrna-mirna",
        "accuracy/methylation-mirna",
    }


def test_modalities_are_compared_on_what_is_asked_for() -> None:
    on_plain, on_view = (start(cross_inputs=inputs) for inputs in CrossInputs)
    plain, view = encoded(*on_plain), encoded(*on_view)
    assert all(torch.equal(view.embeds[name], view.views["first"][name]) for name in view.embeds)
    assert not any(torch.equal(plain.embeds[name], plain.views["first"][name]) for name in plain.embeds)


def test_embeddings_of_different_widths_can_be_compared() -> None:
    method, batch = start(cross=CrossLoss.clip, clip_width=7)
    embeds = {name: embed[:, : i + 2] for i, (name, embed) in enumerate(encoded(method, batch).embeds.items())}
    method.model.embed_sizes.update({name: embed.shape[1] for name, embed in embeds.items()})
    config = make_config("cross_self", 3, **HEADS, cross=CrossLoss.clip, clip_width=7)
    wide = type(method)(config, method.model)
    wide.heads.double()
    features = Features.of(batch, embeds, views={"first": embeds, "second": embeds})
    losses = wide.objective(features, make_step(), World.single())
    assert losses.total.isfinite() and losses.diagnostics["scale"] == pytest.approx(1 / 0.07)


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"temperature": 0.0}, "method.temperature is 0.0"),
        ({"self_weight": -1.0}, "method.self_weight is -1.0: it must be 0 or more"),
        ({"self_weight": 0.0, "cross": CrossLoss.clip}, "choose method=clip"),
        ({"self_weight": 0.0, "cross_inputs": CrossInputs.view}, "needs the views"),
        ({"max_scale": 1000.0}, "method.max_scale is 1000.0: it must be at most 620"),
        ({"max_scale": 10.0}, "method.clip_temperature 0.07 starts above method.max_scale 10.0"),
    ],
)
def test_impossible_settings_are_named(settings: dict[str, Any], problem: str) -> None:
    (found,) = CrossSelfConfig(**settings).problems()
    assert problem in found and not CrossSelfConfig().problems()
