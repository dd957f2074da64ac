"""Soft retrieval: known values, a dense float64 form, and the same result for every sharding of the memory."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from mmpretrain.distributed.world import World
from mmpretrain.embedding.soft_retrieval import Retrieved, soft_retrieve
from tests.rank_pool import Ranks

# Items per rank: equal, uneven, with an empty share, all on the last rank.
SHARES = {
    1: [[37]],
    2: [[20, 17], [37, 0], [0, 37]],
    4: [[10, 9, 9, 9], [1, 30, 0, 6], [0, 0, 0, 37]],
}
CASES = [(size, shares) for size, splits in SHARES.items() for shares in splits]


def rows(seed: int, count: int, width: int = 12, dtype: torch.dtype = torch.float64) -> Tensor:
    """Rows of any length, around a few directions, so that similarities are far apart."""
    draw = torch.Generator().manual_seed(seed)
    centers = torch.randn(5, width, generator=torch.Generator().manual_seed(99), dtype=torch.float64)
    noise = torch.randn(count, width, generator=draw, dtype=torch.float64)
    return (centers[torch.arange(count) % 5] + 0.5 * noise).to(dtype)


def dense(queries: Tensor, memory: Tensor, temperature: float) -> Retrieved:
    """The definition, with the whole matrix of similarities, in float64."""
    asked, items = (torch.nn.functional.normalize(side.double(), dim=1) for side in (queries, memory))
    weights = (asked @ items.T / temperature).softmax(dim=1)
    mean = weights @ items
    entropy = -torch.special.xlogy(weights, weights).sum(dim=1)
    nearest = weights.argmax(dim=1)
    return Retrieved(torch.nn.functional.normalize(mean, dim=1), entropy.exp(), mean.norm(dim=1), nearest)


def assert_same(found: Retrieved, expected: Retrieved, tolerance: float) -> None:
    """Values within ``tolerance``, the effective number within ten times that, relative."""
    torch.testing.assert_close(found.values.double(), expected.values.double(), rtol=0, atol=tolerance)
    torch.testing.assert_close(found.length.double(), expected.length.double(), rtol=0, atol=tolerance)
    torch.testing.assert_close(found.effective.double(), expected.effective.double(), rtol=10 * tolerance, atol=0)
    assert torch.equal(found.nearest, expected.nearest)


def test_a_query_that_is_an_item_gets_it() -> None:
    width = 6
    found = soft_retrieve(torch.eye(width)[:1], torch.eye(width), temperature=0.01)
    torch.testing.assert_close(found.values, torch.eye(width)[:1], rtol=0, atol=1e-40)
    assert found.length.item() == 1 / (1 + (width - 1) * math.exp(-100))
    assert found.effective.item() == 1


def test_weight_of_the_item_at_a_moderate_temperature() -> None:
    width, temperature = 6, 0.5
    found = soft_retrieve(torch.eye(width, dtype=torch.float64)[:1], torch.eye(width), temperature=temperature)
    weight = 1 / (1 + (width - 1) * math.exp(-1 / temperature))
    mean = (found.values * found.length[:, None])[0]
    assert mean[0].item() == pytest.approx(weight, rel=1e-12)
    assert mean[1:].tolist() == pytest.approx([(1 - weight) / (width - 1)] * (width - 1), rel=1e-12)
    entropy = -weight * math.log(weight) - (1 - weight) * math.log((1 - weight) / (width - 1))
    assert found.effective.item() == pytest.approx(math.exp(entropy), rel=1e-12)


def test_a_query_orthogonal_to_all_gets_the_uniform_mean() -> None:
    width = 16
    memory = torch.eye(width + 1)[:width]
    found = soft_retrieve(torch.eye(width + 1)[width:], memory, temperature=0.01)
    torch.testing.assert_close(found.length, torch.tensor([1 / math.sqrt(width)]))
    torch.testing.assert_close(found.effective, torch.tensor([float(width)]))
    torch.testing.assert_close(found.values[0, :width], torch.full((width,), 1 / math.sqrt(width)))


def test_the_mean_lies_in_the_convex_hull_and_values_have_norm_1() -> None:
    queries, memory = rows(0, 20, width=3), rows(1, 9, width=3)
    found = soft_retrieve(queries, memory, temperature=0.2)
    torch.testing.assert_close(found.values.norm(dim=1), torch.ones(20, dtype=torch.float64))
    mean = found.values * found.length[:, None]
    # In every direction the mean lies between the extreme items.
    directions = torch.randn(500, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    reach = torch.nn.functional.normalize(memory, dim=1) @ directions.T
    inside = mean @ directions.T
    assert (inside <= reach.amax(dim=0) + 1e-12).all() and (inside >= reach.amin(dim=0) - 1e-12).all()


@pytest.mark.parametrize("tile", [1, 4, 7, 37, 4096])
@pytest.mark.parametrize("temperature", [0.01, 0.07, 1.0])
def test_tiles_do_not_show(tile: int, temperature: float) -> None:
    queries, memory = rows(3, 11), rows(4, 37)
    found = soft_retrieve(queries, memory, temperature=temperature, tile=tile)
    assert_same(found, dense(queries, memory, temperature), 1e-12)


def test_a_new_largest_similarity_in_every_tile() -> None:
    """Items in the order of their similarity: every tile rescales what was summed before, by up to e^200."""
    angles = torch.linspace(math.pi, 0, 50, dtype=torch.float64)
    memory = torch.stack([angles.cos(), angles.sin()], dim=1)
    queries = torch.tensor([[1.0, 0.0], [-1.0, 0.0]], dtype=torch.float64)
    assert_same(
        soft_retrieve(queries, memory, temperature=0.01, tile=1), dense(queries, memory, temperature=0.01), 1e-12
    )


@pytest.mark.parametrize("width", [8, 64, 512])
def test_float32_at_the_published_temperature(width: int) -> None:
    queries, memory = rows(5, 40, width, torch.float32), rows(6, 500, width, torch.float32)
    expected = dense(queries, memory, 0.01)
    for tile in (64, 4096):
        found = soft_retrieve(queries, memory, temperature=0.01, tile=tile)
        assert found.values.dtype == torch.float32
        assert_same(found, expected, 2e-6)


def test_half_precision_is_computed_in_float32() -> None:
    queries, memory = rows(5, 10, dtype=torch.float16), rows(6, 50, dtype=torch.float16)
    with torch.autocast("cpu", torch.bfloat16):
        found = soft_retrieve(queries, memory, temperature=0.01, tile=8)
    assert found.values.dtype == torch.float32
    assert_same(found, dense(queries, memory, 0.01), 2e-6)


def share_of(counts: list[int], rank: int) -> slice:
    """The rows of one rank, of so many per rank."""
    return slice(sum(counts[:rank]), sum(counts[: rank + 1]))


def retrieve(shares: list[int], asked: list[int], dtype: torch.dtype, tile: int) -> Retrieved:
    """This rank's queries, of ``asked`` per rank, answered by a memory of ``shares`` per rank."""
    world = World.current()
    queries, memory = rows(3, sum(asked), dtype=dtype), rows(4, sum(shares), dtype=dtype)
    own = queries[share_of(asked, world.rank)], memory[share_of(shares, world.rank)]
    return soft_retrieve(*own, temperature=0.01, world=world, tile=tile)


def joined(results: list[Retrieved]) -> Retrieved:
    """The results of all ranks, in their order."""
    names = ("values", "effective", "length", "nearest")
    return Retrieved(*(torch.cat([getattr(r, name) for r in results]) for name in names))


@pytest.mark.parametrize(("size", "shares"), CASES, ids=str)
def test_every_sharding_gives_the_unsharded_result(ranks: Ranks, size: int, shares: list[int]) -> None:
    asked = {1: [11], 2: [4, 7], 4: [3, 0, 7, 1]}[size]
    queries, memory = rows(3, 11), rows(4, 37)
    exact = joined(ranks(size, retrieve, shares, asked, torch.float64, 8))
    assert_same(exact, dense(queries, memory, 0.01), 1e-12)
    single = soft_retrieve(queries.float(), memory.float(), temperature=0.01)
    assert_same(joined(ranks(size, retrieve, shares, asked, torch.float32, 8)), single, 1e-6)


def empty_memory() -> str:
    """What a rank says when no rank has an item."""
    with pytest.raises(ValueError, match="no items") as error:
        soft_retrieve(torch.ones(2, 3), torch.ones(0, 3), temperature=0.01, world=World.current())
    return str(error.value)


def test_what_cannot_be_answered_is_refused(ranks: Ranks) -> None:
    assert all("no items on any rank" in text for text in ranks(2, empty_memory))
    with pytest.raises(ValueError, match="queries have 3 features and the memory 4"):
        soft_retrieve(torch.ones(2, 3), torch.ones(2, 4), temperature=0.01)
    with pytest.raises(ValueError, match="temperature is 0"):
        soft_retrieve(torch.ones(2, 3), torch.ones(2, 3), temperature=0)


def test_no_queries_get_no_answers() -> None:
    found = soft_retrieve(torch.ones(0, 3), torch.ones(2, 3), temperature=0.01)
    assert found.values.shape == (0, 3) and found.effective.shape == (0,)
