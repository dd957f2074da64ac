"""Counter-based random numbers: fair, independent, and a function of (seed, position, index) alone."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from mmpretrain.data.random import normal, uniform

Draw = Callable[..., Tensor]

POSITIONS = torch.arange(1 << 9)
INDICES = 1 << 9
NUMBERS = len(POSITIONS) * INDICES
NEIGHBORS = [(1, 0), (0, 1), (1, 1), (0, 2), (2, 0)]  # next position, next index, ...


def splitmix64(seed: int, position: int, index: int) -> int:
    """The published generator in Python's own integers."""

    def mix(word: int) -> int:
        word = ((word ^ (word >> 30)) * 0xBF58476D1CE4E5B9) % 2**64
        word = ((word ^ (word >> 27)) * 0x94D049BB133111EB) % 2**64
        return word ^ (word >> 31)

    start = mix((mix(seed % 2**64) + position) % 2**64)
    return mix((start + (index + 1) * 0x9E3779B97F4A7C15) % 2**64)


@pytest.mark.parametrize("seed", [0, 1, 2**63 - 1, -5])
def test_the_bits_are_those_of_splitmix64(seed: int) -> None:
    positions = torch.tensor([0, 7, 2**62])
    found = uniform(seed, positions, (4,)).mul(2**24).long()
    for row, position in zip(found.tolist(), positions.tolist(), strict=True):
        words = [splitmix64(seed, position, index) for index in range(2)]
        assert row == [half >> 8 for word in words for half in (word % 2**32, word >> 32)]


def test_uniform_numbers_are_uniform() -> None:
    numbers = uniform(3, POSITIONS, (INDICES,))
    assert numbers.dtype is torch.float32 and numbers.min() >= 0 and numbers.max() < 1
    error = 5 / math.sqrt(NUMBERS)  # five standard errors, up to the factor of each moment
    assert abs(numbers.double().mean() - 1 / 2) < error * math.sqrt(1 / 12)
    assert abs(numbers.double().var() - 1 / 12) < error * math.sqrt(1 / 180)
    counts = torch.histc(numbers, bins=64, min=0, max=1)
    chi_square = ((counts - NUMBERS / 64) ** 2 / (NUMBERS / 64)).sum()
    assert abs(chi_square - 63) < 5 * math.sqrt(2 * 63)


def test_normal_numbers_are_normal() -> None:
    numbers = normal(3, POSITIONS, (INDICES,)).double()
    error = 5 / math.sqrt(NUMBERS)
    assert abs(numbers.mean()) < error
    assert abs(numbers.var() - 1) < error * math.sqrt(2)
    assert abs((numbers**4).mean() - 3) < error * math.sqrt(96)
    inside = (numbers.abs() < 1.959964).double().mean()
    assert abs(inside - 0.95) < error * math.sqrt(0.95 * 0.05)
    assert 4 < numbers.abs().max() < 5.8


@pytest.mark.parametrize("draw", [uniform, normal])
@pytest.mark.parametrize(("down", "right"), NEIGHBORS)
def test_neighbors_are_uncorrelated(draw: Draw, down: int, right: int) -> None:
    numbers = draw(11, POSITIONS, (INDICES,)).double()
    numbers = (numbers - numbers.mean()) / numbers.std()
    here = numbers[: len(POSITIONS) - down, : INDICES - right]
    assert abs((here * numbers[down:, right:]).mean()) < 5 / math.sqrt(here.numel())
    assert abs((here**2 * numbers[down:, right:] ** 2).mean() - 1) < 15 / math.sqrt(here.numel())


def test_neighboring_seeds_are_uncorrelated() -> None:
    first, second = (uniform(seed, POSITIONS, (INDICES,)).double() - 0.5 for seed in (4, 5))
    assert abs((first * second).mean() * 12) < 5 / math.sqrt(NUMBERS)


@pytest.mark.parametrize("draw", [uniform, normal])
def test_rows_depend_on_their_position_alone(draw: Draw) -> None:
    positions = torch.tensor([5, 0, 9, 2**40, 5])
    whole = draw(1, positions, (3, 5))
    assert whole.shape == (5, 3, 5) and torch.equal(whole[0], whole[4])
    order = torch.tensor([3, 1, 0, 4, 2])
    assert torch.equal(draw(1, positions[order], (3, 5)), whole[order])
    assert torch.equal(torch.cat([draw(1, positions[:2], (3, 5)), draw(1, positions[2:], (3, 5))]), whole)
    assert draw(1, positions).shape == (5,)
    assert draw(1, positions[:0], (2,)).shape == (0, 2)
    assert not torch.equal(draw(2, positions, (3, 5)), whole)
