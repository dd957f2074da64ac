"""Gaussians of known mutual information: what the estimates make of their true density, and of learned critics."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from experiments.gaussian_mi import LEVELS, Source, estimate_with_true_density, smooth, train_club, train_nce

# Of batches of 64 in 20 dimensions, by level of information; and CLUB in an endless batch.
RHO = (0.4258, 0.5742, 0.6717, 0.7421, 0.7951)
NCE = (1.83, 3.08, 3.75, 4.02, 4.12)
CLUB = (4.40, 9.70, 16.1, 24.1, 33.9)
ENDLESS = (4.43, 9.84, 16.44, 24.51, 34.37)


@pytest.mark.parametrize("level", range(len(LEVELS)))
def test_the_true_density_gives_the_known_estimates(level: int) -> None:
    source = Source(20, LEVELS[level])
    assert source.rho == pytest.approx(RHO[level], abs=1e-4)
    assert source.club == pytest.approx(ENDLESS[level], abs=0.01)
    nce, club = estimate_with_true_density(source, seed=1)
    assert nce == pytest.approx(NCE[level], abs=0.03)
    assert club == pytest.approx(CLUB[level], rel=0.015)
    assert nce <= min(source.nats, math.log(64)) and club > source.nats


def test_correlations_in_many_dimensions() -> None:
    rhos = [round(Source(200, nats).rho, 4) for nats in LEVELS]
    assert rhos == [0.1407, 0.1980, 0.2413, 0.2773, 0.3085]


@pytest.mark.slow
def test_learned_critics_come_near() -> None:
    """Batches that they have not seen: the second half of 160, in 5 dimensions with 2 nats."""
    curves = {**train_nce(5, 160, seed=0, levels=(2,)), **train_club(5, 160, seed=0, levels=(2,))}
    ends = {name: curve[len(curve) // 2 :].mean() for name, curve in curves.items()}
    truth, above = estimate_with_true_density(Source(5, 2), seed=0)
    assert ends["NCE"] == pytest.approx(truth, abs=0.2)
    assert ends["CLUB"] == pytest.approx(above, rel=0.2)
    assert ends["NCE"] < ends["NCE-CLUB"] < above
    assert max(curves["NCE"]) <= math.log(64)


def test_running_means_begin_with_the_first_value() -> None:
    torch.testing.assert_close(smooth(np.full(9, 2.5)), np.full(9, 2.5))
    assert smooth(np.array([1.0, 3.0])).tolist() == pytest.approx([1, (1 * 49 / 51 + 3) / (1 + 49 / 51)])
