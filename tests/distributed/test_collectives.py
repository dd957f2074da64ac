"""Values and gradients of the collectives on 1, 2 and 4 gloo ranks."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import Tensor, nn

from mmpretrain.distributed.collectives import all_gather_rows
from mmpretrain.distributed.replicas import average_gradients, broadcast_module
from mmpretrain.distributed.world import World
from tests.rank_pool import Ranks

SIZES = [1, 2, 4]


def gather_with_gradient(rows: int) -> tuple[Tensor, Tensor, Tensor]:
    """This rank's rows, the gathered ones, and the gradient of its own."""
    world = World.current()
    own = (torch.arange(rows * 3, dtype=torch.float64).view(rows, 3) + 100 * world.rank).requires_grad_()
    gathered = all_gather_rows(own)
    # Each rank weights the rows differently, so a gradient that is not summed over the ranks cannot pass.
    weights = torch.arange(gathered.numel(), dtype=torch.float64).view_as(gathered) * (world.rank + 1)
    (gathered * weights).sum().backward()
    assert own.grad is not None
    return own.detach(), gathered.detach(), own.grad


@pytest.mark.parametrize("size", SIZES)
def test_gather_is_rank_major_and_its_backward_sums_over_ranks(ranks: Ranks, size: int) -> None:
    results = ranks(size, gather_with_gradient, 2)
    everything = torch.cat([own for own, _, _ in results])
    ranks_sum = size * (size + 1) / 2
    expected = torch.arange(everything.numel(), dtype=torch.float64).view_as(everything) * ranks_sum
    for rank, (_, gathered, grad) in enumerate(results):
        assert torch.equal(gathered, everything)
        assert torch.equal(grad, expected[2 * rank : 2 * rank + 2])


def gather_many_types() -> list[Tensor]:
    """Gathered rows of several types, of strided and of no rows; a warning is an error."""
    rank = World.current().rank
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        inputs = [torch.full((2, 1), rank, dtype=t) for t in (torch.int64, torch.float32, torch.bfloat16)]
        strided = torch.arange(6.0).view(2, 3).t() + rank
        return [all_gather_rows(x) for x in [*inputs, strided, torch.full((0, 2), 1.0)]]


def test_gather_takes_integers_halves_strided_and_empty_tensors_without_warnings(ranks: Ranks) -> None:
    for integers, floats, halves, strided, empty in ranks(2, gather_many_types):
        for gathered in (integers, floats, halves):
            assert gathered.flatten().tolist() == [0, 0, 1, 1]
        assert integers.dtype == torch.int64 and not integers.requires_grad
        assert strided.tolist() == [[0, 3], [1, 4], [2, 5], [1, 4], [2, 5], [3, 6]]
        assert empty.shape == (0, 2)


def largest() -> tuple[Tensor, Tensor]:
    """The maximum over the ranks, and this rank's own values afterwards."""
    world = World.current()
    own = torch.tensor([[float(world.rank), -float(world.rank)], [torch.finfo().min, 7.0]])
    return world.all_reduce_max(own), own


@pytest.mark.parametrize("size", SIZES)
def test_the_largest_is_taken_element_by_element(ranks: Ranks, size: int) -> None:
    for rank, (found, own) in enumerate(ranks(size, largest)):
        assert found.tolist() == [[size - 1, 0], [torch.finfo().min, 7]]
        assert own[0].tolist() == [rank, -rank]


def test_gather_refuses_a_scalar() -> None:
    with pytest.raises(ValueError, match=r"rows \[b, \.\.\.\]"):
        all_gather_rows(torch.tensor(1.0))


def sum_with_gradient() -> tuple[Tensor, Tensor, Tensor]:
    """This rank's values, the sum over the ranks, and the gradient of its own."""
    world = World.current()
    own = torch.full((3,), float(world.rank + 1), dtype=torch.float64, requires_grad=True)
    total = world.all_reduce_sum(own)
    (total * (world.rank + 1)).sum().backward()
    assert own.grad is not None
    return own.detach(), total.detach(), own.grad


@pytest.mark.parametrize("size", SIZES)
def test_sum_and_its_backward_sum_over_ranks_and_leave_the_input(ranks: Ranks, size: int) -> None:
    ranks_sum = size * (size + 1) / 2
    for rank, (own, total, grad) in enumerate(ranks(size, sum_with_gradient)):
        assert own.tolist() == [rank + 1.0] * 3
        assert total.tolist() == [ranks_sum] * 3
        assert grad.tolist() == [ranks_sum] * 3


def averaged() -> list[list[float] | None]:
    """Gradients after averaging, of parameters that not every rank has used."""
    world = World.current()
    parameters = [
        nn.Parameter(torch.zeros(2)),
        nn.Parameter(torch.zeros(2, 1, dtype=torch.float64)),
        nn.Parameter(torch.zeros(1)),  # used on the last rank only
        nn.Parameter(torch.zeros(1)),  # used nowhere
        nn.Parameter(torch.zeros(1), requires_grad=False),
    ]
    for parameter in parameters[: 3 if world.rank == world.size - 1 else 2]:
        parameter.grad = torch.full_like(parameter, world.rank + 1.0)
    average_gradients(iter(parameters), world)
    return [None if p.grad is None else p.grad.flatten().tolist() for p in parameters]


@pytest.mark.parametrize("size", SIZES)
def test_gradients_are_averaged_alike_on_all_ranks(ranks: Ranks, size: int) -> None:
    mean = (size + 1) / 2
    assert ranks(size, averaged) == [[[mean] * 2, [mean] * 2, [1.0], None, None]] * size


def broadcast() -> list[Tensor]:
    """Parameters and buffers after rank 0 has sent its own."""
    world = World.current()
    torch.manual_seed(world.rank)
    norm = nn.BatchNorm1d(2)
    module = nn.Sequential(nn.Linear(3, 2).double(), norm)
    assert norm.num_batches_tracked is not None
    norm.num_batches_tracked.fill_(world.rank + 5)
    broadcast_module(module, world)
    return [t.detach() for t in [*module.parameters(), *module.buffers()]]


def test_broadcast_copies_rank_0_with_buffers(ranks: Ranks) -> None:
    first, *others = ranks(4, broadcast)
    torch.manual_seed(0)
    assert torch.equal(first[0], nn.Linear(3, 2).weight.detach().double())
    assert first[-1].item() == 5
    for other in others:
        assert all(torch.equal(a, b) for a, b in zip(first, other, strict=True))
