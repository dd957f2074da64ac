"""Models in parts: what is built, tied, initialized and run so is what is built whole, and little of it is whole."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from mmpretrain.distributed import in_parts
from mmpretrain.distributed.in_parts import InParts
from mmpretrain.distributed.world import World
from tests.rank_pool import Ranks
from tests.submodules import submodule


def built() -> nn.Sequential:
    """A model with a drawn, a tied, a parametrized and an overwritten weight."""
    torch.manual_seed(0)
    first, second = nn.Linear(200, 200), nn.Linear(200, 200)
    second.weight = first.weight
    normed = nn.utils.parametrizations.weight_norm(nn.Linear(200, 200))
    nn.init.xavier_normal_(first.weight)
    with torch.no_grad():
        first.weight[3] = 7.0
    return nn.Sequential(first, second, normed, *(nn.Linear(200, 200) for _ in range(6)))


def looked_at() -> tuple[list[Tensor], Tensor, int, bool, list[Tensor], Tensor]:
    """Of a model in parts: weights, output, the most bytes that were whole, and whether weights outside are NaN."""
    parts = InParts(World.current(), resident=0)
    with parts.in_use():
        model = built()
        with torch.inference_mode():
            output = model(torch.ones(1, 200))
    away = all(p.isnan().all() for p in model.parameters() if p.numel() > in_parts.SMALL)
    weights = [p.detach().clone() for p in parts.handed_over(model)]
    whole = built()
    return weights, output, parts.most, away, list(whole.parameters()), whole(torch.ones(1, 200)).detach()


def test_a_model_in_parts_is_the_whole_one_and_no_rank_holds_more_than_a_few_of_its_weights(ranks: Ranks) -> None:
    for weights, output, most, away, whole, expected in ranks(2, looked_at):
        assert len(weights) == len(whole) and all(map(torch.equal, weights, whole))
        assert torch.equal(output, expected)
        assert away
        assert most <= 3 * 200 * 200 * 4, "of nine matrices"


def in_float64() -> tuple[bool, torch.dtype]:
    """Whether weights that went to float64 and back are to the bit what they were; and their type in between."""
    parts = InParts(World.current(), resident=0)
    with parts.in_use():
        model = built()
        weight = submodule(model, "4", nn.Linear).weight
        before = weight.detach().clone()
        weight.data = weight.data.double()
        nn.functional.linear(torch.ones(200).double(), weight)
        between = weight.dtype
        weight.data = weight.data.float()
        return torch.equal(weight, before), between


def test_weights_in_parts_may_change_their_type_and_come_back(ranks: Ranks) -> None:
    assert ranks(2, in_float64) == [(True, torch.float64)] * 2


def test_outside_of_its_use_an_accident_shows() -> None:
    parts = InParts(World.single(), resident=0)
    with parts.in_use():
        layer = nn.Linear(200, 200)
    assert layer.weight.shape == (200, 200) and layer(torch.ones(200)).isnan().all()
    with pytest.raises(RuntimeError, match="single memory location"), torch.no_grad():
        layer.weight.add_(1)
