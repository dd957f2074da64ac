"""Maps of planted images: shares of halves, likeness, and decompositions with something taken at random."""

from __future__ import annotations

import numpy as np
import torch

from experiments.mucmm_maps import alike, random_codes, shares, shuffled_pairs
from mmpretrain.evaluation.embeddings import Embeddings
from mmpretrain.explain.decomposition import CodesOrigin, fit, split_codes
from mmpretrain.explain.settings import Settings

PAIR = ("first", "second")
SETTINGS = Settings(common=2, individual=2)


def embeddings(count: int = 300) -> Embeddings:
    """Two of five directions are shared."""
    draw = np.random.default_rng(0)
    shared = draw.standard_normal((count, 2))
    sides = {name: np.hstack([shared, draw.standard_normal((count, 3))]).astype(np.float32) for name in PAIR}
    return Embeddings(np.arange(count), sides)


def test_shares_and_likeness_of_maps() -> None:
    left = np.zeros((2, 8, 16))
    left[:, :, :8] = np.random.default_rng(0).random((2, 8, 8))
    left /= left.sum(axis=(1, 2), keepdims=True)
    closed = {("first", "common"): left, ("first", "individual"): left}
    np.testing.assert_allclose(list(shares(closed).values()), [1.0, 0.0], atol=1e-12)
    assert min(alike(closed, closed).values()) > 1 - 1e-12
    other = {key: values[:, :, ::-1] for key, values in closed.items()}
    assert max(alike(other, closed).values()) < 0


def test_random_directions_are_white_and_share_nothing() -> None:
    split = embeddings()
    closed = fit(split, PAIR, SETTINGS, CodesOrigin.closed_form)
    codes = split_codes(random_codes(closed, 0), split)
    for own in codes.values():
        both = torch.cat([own.common, own.individual], dim=1)
        torch.testing.assert_close(torch.cov(both.T), torch.eye(4, dtype=torch.float64), atol=1e-3, rtol=0)
    rho = (codes["first"].common * codes["second"].common).mean(dim=0)
    assert closed.rho.min() > 0.9 > rho.abs().max()


def test_shuffled_pairs_do_not_correlate() -> None:
    assert shuffled_pairs(embeddings(), PAIR, SETTINGS, 0).rho.max() < 0.4
