"""The learnable temperature."""

from __future__ import annotations

import pytest
import torch

from mmpretrain.losses.temperature import Temperature


def test_starts_at_the_temperature_with_one_parameter_of_shape_1() -> None:
    temperature = Temperature(0.07, 100.0)
    assert temperature().item() == pytest.approx(1 / 0.07, rel=1e-6)
    assert [(name, p.shape) for name, p in temperature.named_parameters()] == [("logit_scale", (1,))]


def test_is_clamped_by_value_and_keeps_its_gradient_at_the_limit() -> None:
    temperature = Temperature(0.5, 10.0)
    optimizer = torch.optim.SGD(temperature.parameters(), lr=1.0)
    for _ in range(20):
        optimizer.zero_grad()
        (-temperature()).backward()
        optimizer.step()
        temperature.clamp_()
    assert temperature().item() == pytest.approx(10.0, rel=1e-6)
    assert temperature.logit_scale.grad is not None and temperature.logit_scale.grad.item() < 0
    optimizer.zero_grad()
    temperature().backward()
    optimizer.step()
    assert temperature().item() < 10.0
