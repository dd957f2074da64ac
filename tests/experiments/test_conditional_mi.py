"""Conditional information: what the true density says, and that a critic learns towards the bound."""

from __future__ import annotations

import math

import pytest
import torch

from experiments.conditional_mi import CANDIDATES, NOISE, TRUTH, Samples, estimates, train


def test_the_true_density_reaches_the_bound_and_overshoots_as_club() -> None:
    generator = torch.Generator().manual_seed(0)
    samples = Samples.draw(4000, 3, generator)
    candidates = samples.candidates(generator)
    distances = candidates - samples.x[:, None] - samples.z[:, :1]
    bound, club = estimates(-distances.square() / (2 * NOISE**2))
    assert TRUTH - 0.25 < bound < TRUTH + 0.05
    assert club == pytest.approx(100 * (1 - 1 / CANDIDATES), rel=0.05)


def test_other_candidates_know_z_and_not_x() -> None:
    generator = torch.Generator().manual_seed(1)
    samples = Samples.draw(5000, 2, generator)
    other = samples.candidates(generator)[:, 1]
    correlation = torch.corrcoef(torch.stack([other, samples.z[:, 0], samples.x]))[0]
    assert correlation[1] > 0.2 and abs(correlation[2]) < 0.05
    assert other.std().item() == pytest.approx(math.sqrt(1 + NOISE**2 + 1 / 12), rel=0.05)


def test_a_critic_learns() -> None:
    first, *_, last = train(2, 500, 36, seed=0)
    assert first[0] < last[0] < math.log(CANDIDATES)
