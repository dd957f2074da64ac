"""Popular ways to gather negatives, and what they do to gradients: all have the right loss, few the right gradient.

Four ranks, float64, gradients averaged over the ranks, compared with one process on the whole batch. It shows that the
parity tests can fail, and why the gradient and not the loss is what they test.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from mmpretrain.distributed.collectives import all_gather_rows, average_gradients
from mmpretrain.distributed.world import World
from mmpretrain.losses.contrastive import Pair, contrastive
from tests.rank_pool import Ranks

RANKS, LOCAL = 4, 3
Gradients = dict[str, Tensor]


class WithoutGradient(World):
    """A world whose gather passes no gradient to any rank."""

    def all_gather_rows(self, rows: Tensor) -> Tensor:
        return super().all_gather_rows(rows).detach()


class MeanGradient(World):
    """A world whose gather averages gradients over the ranks instead of summing them."""

    def all_gather_rows(self, rows: Tensor) -> Tensor:
        gathered = super().all_gather_rows(rows)
        return gathered / self.size + gathered.detach() * (1 - 1 / self.size)


def ours(query: Tensor, key: Tensor, scale: Tensor) -> Tensor:
    return contrastive([Pair(query, key)], scale=scale, world=World.current())[0].loss


def rows_against_detached(query: Tensor, key: Tensor, scale: Tensor) -> Tensor:
    world = World.current()
    return contrastive([Pair(query, key)], scale=scale, world=WithoutGradient(world.rank, world.size))[0].loss


def rows_with_mean_backward(query: Tensor, key: Tensor, scale: Tensor) -> Tensor:
    world = World.current()
    return contrastive([Pair(query, key)], scale=scale, world=MeanGradient(world.rank, world.size))[0].loss


def whole_batch_on_every_rank(query: Tensor, key: Tensor, scale: Tensor) -> Tensor:
    pair = Pair(all_gather_rows(query), all_gather_rows(key))
    return contrastive([pair], scale=scale, world=World.single())[0].loss


def whole_batch_with_own_rows_live(query: Tensor, key: Tensor, scale: Tensor) -> Tensor:
    sides = []
    for rows in (query, key):
        everyone = list(all_gather_rows(rows).detach().split(LOCAL))
        everyone[World.current().rank] = rows
        sides.append(torch.cat(everyone))
    return contrastive([Pair(sides[0], sides[1])], scale=scale, world=World.single())[0].loss


def temperature_summed(query: Tensor, key: Tensor, scale: Tensor) -> Tensor:
    # The same value, but its gradient is summed over the ranks before all gradients are averaged.
    return ours(query, key, World.current().all_reduce_sum(scale) - (RANKS - 1) * scale.detach())


def gradients(loss_of: Callable[[Tensor, Tensor, Tensor], Tensor]) -> tuple[float, Gradients]:
    """The mean loss and the averaged gradients of two linear encoders and a temperature."""
    world = World.current()
    torch.manual_seed(0)
    encoders = nn.ModuleDict({name: nn.Linear(5, 4).double() for name in ("image", "text")})
    scale = nn.Parameter(torch.tensor([7.0], dtype=torch.float64))
    inputs = torch.randn(2, RANKS * LOCAL, 5, dtype=torch.float64)
    own = slice(world.rank * LOCAL, (world.rank + 1) * LOCAL) if world.size > 1 else slice(None)
    loss = loss_of(encoders["image"](inputs[0][own]), encoders["text"](inputs[1][own]), scale)
    loss.backward()
    average_gradients([*encoders.parameters(), scale], world)
    mean = world.all_reduce_sum(loss.detach()) / world.size
    parts = [*encoders.items(), ("temperature", nn.ParameterList([scale]))]
    return mean.item(), {name: _flat_gradient(part) for name, part in parts}


def _flat_gradient(module: nn.Module) -> Tensor:
    return torch.cat([p.grad.flatten() for p in module.parameters() if p.grad is not None])


def compare(found: Gradients, reference: Gradients, name: str) -> tuple[float, float]:
    """Length along the reference relative to it, and what is left across it."""
    g, r = found[name], reference[name]
    ratio = (g @ r / (r @ r)).item()
    return ratio, ((g - ratio * r).norm() / r.norm()).item()


WRONG_DIRECTION = None
TABLE = [
    # variant, ratio of both encoders' gradients (None: another direction), ratio of the temperature's
    (ours, 1.0, 1.0),
    (whole_batch_on_every_rank, 1.0, 1.0),
    (rows_against_detached, WRONG_DIRECTION, 1.0),
    (rows_with_mean_backward, WRONG_DIRECTION, 1.0),
    (whole_batch_with_own_rows_live, 1 / RANKS, 1.0),
    (temperature_summed, 1.0, RANKS),
]


@pytest.mark.parametrize(("variant", "encoders", "temperature"), TABLE)
def test_every_loss_is_right_but_not_every_gradient(
    ranks: Ranks, variant: Callable, encoders: float | None, temperature: float
) -> None:
    loss, reference = gradients(ours)
    for mean, found in ranks(RANKS, gradients, variant):
        assert mean == pytest.approx(loss, rel=1e-12)
        assert compare(found, reference, "temperature")[0] == pytest.approx(temperature, rel=1e-10)
        for name in ("image", "text"):
            ratio, across = compare(found, reference, name)
            if encoders is WRONG_DIRECTION:
                assert across > 0.05
            else:
                assert ratio == pytest.approx(encoders, rel=1e-10) and across < 1e-10
