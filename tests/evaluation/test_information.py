"""The information probe recovers known mutual information, and finds none where there is none."""

from __future__ import annotations

import numpy as np
import pytest

from mmpretrain.evaluation.information import Pairs, information

QUICK = {"epochs": 15, "batch": 64, "lr": 2e-3, "hidden": 64}


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
