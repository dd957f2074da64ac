"""SigLIP as a method: its initial values, its limit, and that it learns."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch

from mmpretrain.config.methods.names import SiglipConfig
from mmpretrain.distributed.world import World
from mmpretrain.methods.siglip import Siglip
from tests.methods.toys import make_batch, make_config, make_method, make_step


def test_unrelated_embeddings_start_at_the_papers_value() -> None:
    """All similarities 0, so that every logit is the bias of -10: one positive and N - 1 negatives per row."""
    config = make_config("siglip")
    method, batch = make_method(config), make_batch(config)
    features = method.encode(method.model, batch)
    size = len(batch)
    axes = torch.eye(2, 4, dtype=torch.float64)
    embeds = {name: axis.repeat(size, 1) for name, axis in zip(features.embeds, axes, strict=True)}
    features = replace(features, embeds=embeds, sample_ids=torch.arange(size))
    losses = method.objective(features, make_step(), World.single())
    expected = math.log1p(math.exp(10)) + (size - 1) * math.log1p(math.exp(-10))
    assert losses.total.item() == pytest.approx(expected, rel=1e-12)
    assert losses.diagnostics["scale"] == pytest.approx(10) and losses.diagnostics["bias"] == -10
    assert losses.diagnostics.keys() == {"accuracy/mrna-methylation", "scale", "bias"}


@pytest.mark.parametrize(("limit", "held"), [(None, 1000.0), (20.0, 20.0)])
def test_the_scale_has_a_limit_only_if_one_is_set(limit: float | None, held: float) -> None:
    method = make_method(make_config("siglip", max_scale=limit))
    assert isinstance(method, Siglip)
    torch.nn.init.constant_(method.temperature.logit_scale, math.log(1000))
    method.clamp_()
    assert method.temperature().item() == pytest.approx(held)


def test_temperature_and_bias_are_heads_of_shape_one() -> None:
    method = make_method(make_config("siglip"))
    shapes = {name: list(p.shape) for name, p in method.heads.named_parameters()}
    assert shapes == {"temperature.logit_scale": [1], "bias.value": [1]}


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"temperature": 0.0}, "method.temperature is 0.0"),
        ({"max_scale": -1.0}, "method.max_scale is -1.0"),
        ({"max_scale": 5.0}, r"method.temperature 0.1 starts above method.max_scale 5.0: use at least 0.2"),
    ],
)
def test_impossible_settings_are_named(settings: dict[str, Any], problem: str) -> None:
    (found,) = SiglipConfig(**settings).problems()
    assert problem in found
    assert not SiglipConfig().problems() and not SiglipConfig(max_scale=10.0).problems()
