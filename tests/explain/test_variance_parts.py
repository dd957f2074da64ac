"""The parts of the variance of worlds whose truth is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from mmpretrain.evaluation.embeddings import Embeddings
from mmpretrain.explain.decomposition import CodesOrigin
from mmpretrain.explain.information import Report, information_report
from mmpretrain.explain.scores import Codes
from mmpretrain.explain.settings import Settings
from mmpretrain.explain.variance_parts import PartsFit
from shards.linear import CORRELATIONS, STRENGTH, draw, mixing, population
from shards.planted import Right, draw_pairs

PAIR = ("first", "second")


def pair_of(samples: int, rho: list[float], width: int, seed: int) -> Embeddings:
    """Two Gaussians of unit variance whose first coordinates correlate by ``rho``, and whose others do not."""
    draws = np.random.default_rng(seed)
    first, noise = draws.normal(size=(2, samples, width))
    correlations = np.pad(np.array(rho), (0, width - len(rho)))
    second = correlations * first + np.sqrt(1 - correlations**2) * noise
    return Embeddings(np.arange(samples), {"first": first, "second": second})


def report(train: Embeddings, test: Embeddings, common: int | None = None) -> Report:
    """In closed form."""
    return information_report(train, test, PAIR, Settings(common, draws=20), CodesOrigin.closed_form, {})


def numbers(found: Report, name: str) -> dict[str, float]:
    """The parts on held-out samples."""
    return {key: float(value) for key, value in found.parts[name].held_out.named().items()}


def test_a_correlation_of_a_third_shares_a_ninth_of_its_directions() -> None:
    """Four of eight directions, each an eighth of the variance."""
    found = report(pair_of(6000, [1 / 3] * 4, 8, 1), pair_of(6000, [1 / 3] * 4, 8, 2))
    assert len(found.decomposition.rho) == 4
    for name in PAIR:
        parts = numbers(found, name)
        assert parts["shared"] == pytest.approx(4 / 8 / 9, abs=0.01)
        assert parts["unshared"] == pytest.approx(4 / 8 * 8 / 9, abs=0.02)
        assert parts["own"] == pytest.approx(4 / 8, abs=0.02) and parts["left_out"] == pytest.approx(0, abs=0.01)
        # What all of the variance along common directions was once called.
        assert found.decomposition.parts[name].shares[0] == pytest.approx(0.5, abs=0.02)


def test_the_linear_world_has_the_parts_that_it_was_made_of() -> None:
    """The best prediction of z_2 from h_1 has the correlation 0.9 and 0.6 (to the noise), in M_2's first rows."""
    train, test = (Embeddings(np.arange(8000), dict(zip(PAIR, draw(8000, seed), strict=True))) for seed in (1, 2))
    found = report(train, test)
    covariance, start = population(), 0
    for name, m in zip(PAIR, mixing(), strict=True):
        width = m.shape[1]
        total = np.trace(covariance[start : start + width, start : start + width])
        start += width
        energy = np.square(m).sum(axis=1)
        shared = (CORRELATIONS**2 * energy[:2]).sum() / total
        parts = numbers(found, name)
        assert parts["shared"] == pytest.approx(shared, abs=0.02)
        assert parts["own"] == pytest.approx(STRENGTH**2 * energy[2:].sum() / total, abs=0.03)
        assert sum(parts.values()) == pytest.approx(1)


@pytest.mark.parametrize("common", [None, 3], ids=["chosen", "asked for"])
def test_independent_modalities_share_nothing(common: int | None) -> None:
    """Also where common directions are asked for: in sample they correlate, on other samples they do not."""
    found = report(pair_of(800, [], 8, 3), pair_of(800, [], 8, 4), common)
    for name in PAIR:
        assert numbers(found, name)["shared"] < 0.003
        in_sample = float(found.parts[name].in_sample.shared)
        assert (in_sample > 0.003) == (common is not None)


def test_identical_modalities_share_everything() -> None:
    world, other = (pair_of(2000, [], 5, seed) for seed in (5, 6))
    train, test = (
        replace(
            split, embeds={"first": split.embeds["first"], "second": split.embeds["first"] @ np.diag([1, 2, 3, 4, 5])}
        )
        for split in (world, other)
    )
    found = report(train, test)
    for name in PAIR:
        assert numbers(found, name)["shared"] == pytest.approx(1, abs=1e-3)


def test_in_sample_the_parts_are_weighted_by_the_squared_correlations() -> None:
    found = report(pair_of(500, [0.8, 0.4], 6, 7), pair_of(500, [0.8, 0.4], 6, 8), common=2)
    fitted = found.decomposition
    for name in PAIR:
        part = fitted.parts[name]
        weighted = (fitted.rho**2 * part.loadings[0].square().sum(dim=0)).sum() / part.variances.sum()
        assert float(found.parts[name].in_sample.shared) == pytest.approx(float(weighted), abs=1e-3)


def test_codes_that_repeat_or_do_not_vary_break_nothing() -> None:
    draw_rows = torch.Generator().manual_seed(0)
    rows, other = torch.randn(2, 50, 3, generator=draw_rows, dtype=torch.float64)
    rows[:, 2] = 1.0
    codes = Codes(rows[:, [0, 0, 2]], rows[:, :1])
    fitted = PartsFit.of(rows, codes, Codes(other, other))
    for found in (fitted.parts(rows, codes, Codes(other, other), coordinates=True).named()).values():
        assert found.isfinite().all() and (found >= 0).all() and (found <= 1 + 1e-12).all()
    whole = fitted.parts(rows, codes, Codes(other, other))
    assert float(whole.own) == pytest.approx(0, abs=1e-9)  # the individual code repeats the common one
    assert fitted.parts(rows, codes, Codes(other, other), coordinates=True).left_out[2] == 1


def test_planted_pairs_share_on_the_left_alone() -> None:
    """Pixels as embeddings: the class on the left is the same in both pictures, those on the right are independent."""
    scans = load_digits()
    splits = []
    for stream in (0, 1):
        rows, _ = draw_pairs(scans.target, Right.private, 3000, stream)
        pixels = scans.images[rows]  # [n, 2 pictures, 2 halves, 8, 8]
        splits.append(
            Embeddings(np.arange(3000), {name: pixels[:, i].reshape(3000, -1) for i, name in enumerate(PAIR)})
        )
    found = report(splits[0], splits[1])
    for name in PAIR:
        left, right = found.parts[name].coordinates.shared.view(2, 64)
        assert float(left.max()) > 0.2 and float(right.max()) < 0.02
        assert 0.03 < numbers(found, name)["shared"] < 0.5
