"""Encoders of what a robot feels: which steps count, padding, and the sizes of the paper."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mmpretrain.models.encoders_mmpretrain import Encoder
from mmpretrain.models.pooling_mmpretrain import StateForm
from mmpretrain.models.robotics_mmpretrain import CausalConvolutions, LeakyMLP

WIDTHS = [16, 32, 64, 128, 512]


def released(values: Tensor, layers: nn.ModuleList) -> Tensor:
    """As the code of Vision & Touch has it: zeros on both ends, and the end of the output cut off."""
    layer: Any
    x = values.transpose(1, 2)
    for layer in layers:
        x = nn.functional.leaky_relu(nn.functional.conv1d(x, layer.weight, layer.bias, 2, 1)[:, :, :-1], 0.1)
    return x.squeeze(2)


def steps_seen(model: CausalConvolutions) -> list[int]:
    """Which of 32 steps change what it gives."""
    values = torch.randn(1, 32, 6).requires_grad_()
    model(values).sum().backward()
    assert values.grad is not None
    return torch.nonzero(values.grad.abs().sum(dim=2)[0]).flatten().tolist()


def test_windows_end_with_the_last_step_and_those_of_the_released_code_before() -> None:
    torch.manual_seed(0)
    assert steps_seen(CausalConvolutions(6, WIDTHS)) == list(range(32))
    model = CausalConvolutions(6, WIDTHS, released=True)
    assert steps_seen(model) == [0]
    values = torch.randn(2, 32, 6)
    assert torch.allclose(model(values), released(values, model.layers), atol=1e-6)


@pytest.mark.parametrize("kernel", [2, 3])
@pytest.mark.parametrize("length", [1, 5, 8])
def test_padding_changes_nothing(length: int, kernel: int) -> None:
    torch.manual_seed(0)
    config = {"input_size": 6, "widths": [4, 4, 5], "kernel": kernel}
    model = Encoder("force", {"architecture": "causal_cnn", "config": config, "pool": "last"}).eval()
    values = torch.randn(1, length, 6)
    alone = model(values=values)
    padded = torch.cat([values, torch.full((1, 9 - length, 6), 7.0)], dim=1)
    mask = torch.tensor([[1] * length + [0] * (9 - length)])
    assert torch.allclose(model(values=padded, attention_mask=mask), alone, atol=1e-6)
    assert model.states(values=padded, attention_mask=mask).mask is None and model.form is StateForm.vector


def test_sizes_are_those_of_the_paper() -> None:
    convolutions = sum(2 * a * b + b for a, b in pairwise([6, *WIDTHS]))
    assert sum(p.numel() for p in CausalConvolutions(6, WIDTHS).parameters()) == convolutions
    assert CausalConvolutions(6, WIDTHS)(torch.zeros(3, 32, 6)).shape == (3, 512)
    state = sum(a * b + b for a, b in pairwise([8, 32, 64, 128, 512]))
    assert sum(p.numel() for p in LeakyMLP(8, [32, 64, 128, 512]).parameters()) == state


def test_the_mlp_has_a_leaky_relu_behind_every_layer() -> None:
    torch.manual_seed(0)
    model, values = LeakyMLP(3, [4, 2]), torch.randn(5, 3)
    x = values
    for layer in model.layers:
        x = nn.functional.leaky_relu(layer(x), 0.1)
    assert torch.equal(model(values), x)


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="steps between windows would be skipped"):
        CausalConvolutions(6, [4], kernel=2, stride=3)
    with pytest.raises(ValueError, match=r"values has shape \[2, 4, 5\]"):
        CausalConvolutions(6, [4])(torch.zeros(2, 4, 5))
    with pytest.raises(ValueError, match=r"values has shape \[2, 5\]"):
        LeakyMLP(6, [4])(torch.zeros(2, 5))
