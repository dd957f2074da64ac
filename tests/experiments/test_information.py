"""Known mutual information is recovered, none is found where there is none, and the bound is a bound."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from experiments.information import Pairs, information, linear_information

QUICK: dict[str, Any] = {"epochs": 15, "batch": 64, "lr": 2e-3, "hidden": 64}


def correlated(rho: float, samples: int, seed: int, width: int = 2) -> Pairs:
    """Pairs of normal vectors whose coordinates correlate by ``rho``, the first ones scaled and moved."""
    draw = np.random.default_rng(seed)
    z, noise = draw.normal(size=(2, samples, width))
    return (50 * z + 7).astype(np.float32), (rho * z + np.sqrt(1 - rho**2) * noise).astype(np.float32)


@pytest.mark.parametrize("rho", [0.0, 0.9])
def test_gaussian_information_is_recovered(rho: float) -> None:
    found = information(correlated(rho, 3000, seed=1), correlated(rho, 1500, seed=2), **QUICK)
    assert found == pytest.approx(-np.log(1 - rho**2), abs=0.25)


def test_twice_the_same_and_no_trace_in_the_global_generator() -> None:
    import torch

    pairs = correlated(0.5, 200, seed=1)
    torch.manual_seed(3)
    before = torch.get_rng_state()
    first, second = (information(pairs, pairs, epochs=1, batch=64, hidden=8) for _ in range(2))
    assert first == second and torch.equal(before, torch.get_rng_state())


def test_too_few_samples_are_named() -> None:
    pairs = correlated(0.5, 20, seed=1)
    with pytest.raises(ValueError, match="20 samples do not fill a batch of 256"):
        information(pairs, pairs)


@pytest.mark.parametrize("rho", [0.0, 0.5, 0.99])
def test_the_bound_is_exact_for_gaussians(rho: float) -> None:
    pairs = correlated(rho, 4000, seed=1), correlated(rho, 4000, seed=2)
    assert linear_information(*pairs) == pytest.approx(-np.log(1 - rho**2), abs=0.05)


def test_the_bound_does_not_depend_on_how_directions_are_scaled() -> None:
    """Directions of small variance count like others; those that only repeat others change nothing."""
    (z, w), (held_z, held_w) = correlated(0.9, 3000, seed=1), correlated(0.9, 1000, seed=2)
    mixing = np.array([[1.0, 1.0, 2.0], [1.0, 1.001, 2.0]])
    mixed = (z @ mixing, w), (held_z @ mixing, held_w)
    assert linear_information(*mixed) == pytest.approx(linear_information((z, w), (held_z, held_w)), abs=1e-6)


def test_the_bound_stays_below_what_a_curved_representation_holds() -> None:
    """z = w^3 + noise says more than any line can read: the bound is that of its linear part, not above the truth."""
    draw = np.random.default_rng(3)
    w, noise = draw.normal(size=(2, 8000, 1))
    bound = linear_information((w[:4000] ** 3 + 0.01 * noise[:4000], w[:4000]), (w[4000:] ** 3, w[4000:]))
    # corr(w, w^3)^2 = 9 / 15
    assert bound == pytest.approx(-0.5 * np.log(1 - 9 / 15), abs=0.08)


def test_the_bound_needs_more_samples_than_features() -> None:
    pairs = np.zeros((3, 4)), np.zeros((3, 1))
    with pytest.raises(ValueError, match="3 samples do not determine a map from 4 features"):
        linear_information(pairs, pairs)
