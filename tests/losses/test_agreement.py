"""What the losses refuse, on all ranks with one sentence, and numbers at the ends of their type."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from mmpretrain.config.objective import Negatives, ObjectiveConfig
from mmpretrain.distributed.collectives import all_gather_rows
from mmpretrain.distributed.world import World
from mmpretrain.losses.contrastive import Pair, contrastive
from mmpretrain.losses.critic_networks import SeparableCritic
from mmpretrain.losses.critics import nce
from mmpretrain.losses.sigmoid import sigmoid_contrastive
from tests.rank_pool import Ranks

Loss = Callable[[Tensor, Tensor], Tensor]


def infonce(query: Tensor, key: Tensor) -> Tensor:
    """One pair at scale 10."""
    return contrastive([Pair(query, key)], scale=10.0, world=World.current())[0].loss


def sigmoid(query: Tensor, key: Tensor) -> Tensor:
    """One pair at scale 10 and bias -3."""
    return sigmoid_contrastive([Pair(query, key)], scale=10.0, bias=-3.0, world=World.current())[0].loss


def critic(query: Tensor, key: Tensor) -> Tensor:
    """A separable critic's bound."""
    torch.manual_seed(0)
    return nce(SeparableCritic(4, 4, 8, 4, 1).to(query.dtype), query, key, world=World.current())


LOSSES = pytest.mark.parametrize("loss", [infonce, sigmoid, critic])


def sides(rows: int = 3, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Two of [rows, 4], float64, that need gradients."""
    drawn = torch.randn(2, rows, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return drawn[0].requires_grad_(), drawn[1].requires_grad_()


@LOSSES
def test_second_derivatives_are_refused_and_never_silently_wrong(loss: Loss) -> None:
    query, key = sides()
    with pytest.raises(RuntimeError, match="second derivatives of this loss are not implemented"):
        torch.autograd.grad(loss(query, key), query, create_graph=True)
    # A penalty on the side, of something else, is no reason to refuse.
    torch.autograd.grad(loss(query, key), query)


def gathered_twice(rank_rows: Tensor) -> str:
    """What a second derivative through a gather alone is told."""
    rows = rank_rows.clone().requires_grad_()
    try:
        torch.autograd.grad(all_gather_rows(rows).square().sum(), rows, create_graph=True)
    except RuntimeError as error:
        return str(error)
    return ""


def test_second_derivatives_through_a_gather_are_refused(ranks: Ranks) -> None:
    assert all("second derivatives" in said for said in ranks(2, gathered_twice, torch.ones(2, 3)))


def told(loss: Loss, counts: list[int]) -> str:
    """What a rank with its count of samples is told."""
    query, key = sides(counts[World.current().rank])
    try:
        loss(query, key).backward()
    except ValueError as error:
        return str(error)
    return ""


@LOSSES
@pytest.mark.parametrize(
    ("counts", "said"),
    [([3, 2], "different numbers of samples (3 on rank 0, 2 on rank 1)"), ([0, 0], "a batch without samples")],
)
def test_uneven_and_empty_batches_are_refused_on_every_rank(
    ranks: Ranks, loss: Loss, counts: list[int], said: str
) -> None:
    assert all(said in found for found in ranks(2, told, loss, counts))


@LOSSES
def test_an_empty_batch_on_one_rank_is_refused_on_both(ranks: Ranks, loss: Loss) -> None:
    full, empty = ranks(2, told, loss, [3, 0])
    assert "without samples" in empty and "rank 1 refused its samples" in full


@LOSSES
def test_an_empty_batch_alone_is_refused(loss: Loss) -> None:
    with pytest.raises(ValueError, match="a batch without samples has no loss"):
        loss(*sides(0))


def test_local_negatives_need_no_agreement(ranks: Ranks) -> None:
    assert ranks(2, told, local, [3, 2]) == ["", ""]


def local(query: Tensor, key: Tensor) -> Tensor:
    """Negatives of this rank alone."""
    settings = ObjectiveConfig(Negatives.local)
    return contrastive([Pair(query, key)], scale=10.0, world=World.current(), settings=settings)[0].loss


@pytest.mark.parametrize("scale", [-1.0, 0.0, float("nan"), float("inf")])
def test_the_sigmoid_loss_takes_finite_scales_above_zero(scale: float) -> None:
    query, key = sides()
    for given in (scale, torch.tensor([scale])):
        with pytest.raises(ValueError, match="the scale"):
            sigmoid_contrastive([Pair(query, key)], scale=given, bias=-3.0, world=World.single())


def test_the_sigmoid_loss_takes_finite_biases() -> None:
    query, key = sides()
    with pytest.raises(ValueError, match="the bias is nan"):
        sigmoid_contrastive([Pair(query, key)], scale=1.0, bias=float("nan"), world=World.single())


@pytest.mark.parametrize("loss", [infonce, sigmoid])
@pytest.mark.parametrize("factor", [1e-36, 1e-25, 1e-12, 1e12, 1e20, 1e38])
def test_rows_of_any_length_count_by_their_direction(loss: Loss, factor: float) -> None:
    query, key = (side.detach() for side in sides(6))
    exact = [(factor * query).requires_grad_(), key.clone().requires_grad_()]
    found = [side.detach().float().requires_grad_() for side in exact]
    right, value = loss(exact[0], exact[1]), loss(found[0], found[1])
    right.backward()
    value.backward()
    assert value.item() == pytest.approx(right.item(), rel=1e-5)
    for side, reference in zip(found, exact, strict=True):
        assert side.grad is not None and reference.grad is not None
        assert (side.grad.double() - reference.grad).norm() < 1e-5 * reference.grad.norm()
