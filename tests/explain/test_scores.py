"""Scores of common and individual codes; section 11 of MUCMM (reconstruction), checks 3 and 8."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from mmpretrain.evaluation.embeddings import Embeddings
from mmpretrain.explain.decomposition import CodesOrigin, Decomposition, fit, split_codes
from mmpretrain.explain.explain import score_table
from mmpretrain.explain.scores import common_score, individual_score
from mmpretrain.explain.settings import AttributionForm, CommonScore, IndividualScore, Settings
from tests.explain.explained import linear_world

PAIR = ("first", "second")


@pytest.fixture(scope="module")
def world() -> tuple[Embeddings, Decomposition]:
    """4000 samples and what they share; dimensions of noise alone are left out."""
    embeddings = linear_world(4000, 1)
    return embeddings, fit(embeddings, PAIR, Settings(common=2, draws=5), CodesOrigin.closed_form)


def test_mean_scores_are_the_correlations_and_the_number_of_individual_directions(
    world: tuple[Embeddings, Decomposition],
) -> None:
    embeddings, fitted = world
    columns = score_table(embeddings, fitted, AttributionForm(), [""] * 4000).columns
    unbiased = 4000 / 3999  # the closed form divides by n - 1; its ridge makes codes a little smaller
    assert columns["common"].mean() * unbiased == pytest.approx(float(fitted.spectrum[:2].sum()), abs=1e-3)
    assert columns["individual_first"].mean() == pytest.approx(3, abs=1e-2)
    assert columns["common_first"].mean() == pytest.approx(2, abs=1e-2)
    assert columns["energy_first"].min() > 0 and columns["energy_first"].max() < 1


def test_unrelated_pairs_share_nothing_and_keep_their_own(world: tuple[Embeddings, Decomposition]) -> None:
    embeddings, fitted = world
    order = np.random.default_rng(0).permutation(4000)
    shuffled = replace(embeddings, embeds={**embeddings.embeds, "second": embeddings.embeds["second"][order]})
    before, after = (score_table(split, fitted, AttributionForm(), [""] * 4000) for split in (embeddings, shuffled))
    assert abs(after.columns["common"].mean()) < 3 * np.sqrt(2 / 4000)
    assert abs(before.mismatched.mean()) < 3 * np.sqrt(2 / 4000)
    assert np.array_equal(before.columns["individual_second"][order], after.columns["individual_second"])
    assert np.array_equal(before.columns["individual_first"], after.columns["individual_first"])


def test_forms_of_the_scores() -> None:
    first, second = torch.tensor([[3.0, 4.0], [0.0, 0.0]]), torch.tensor([[3.0, 4.0], [1.0, 1.0]])
    assert common_score(first, second).tolist() == [25, 0]
    assert common_score(first, second, weights=torch.tensor([1.0, 0.5])).tolist() == [17, 0]
    assert common_score(first, second, CommonScore.cosine).tolist() == pytest.approx([1, 0])


def test_energy_is_the_individual_share_of_both_parts(world: tuple[Embeddings, Decomposition]) -> None:
    """Both codes are white and uncorrelated, so that their parts of the variance are all of it."""
    embeddings, fitted = world
    for name, codes in split_codes(fitted, embeddings).items():
        part = fitted.parts[name]
        centered = torch.from_numpy(embeddings.embeds[name]) - part.mean
        common, individual = (
            (code @ loadings.T).square().sum(dim=1)
            for code, loadings in zip((codes.common, codes.individual), part.loadings, strict=True)
        )
        assert float((common + individual).mean()) == pytest.approx(
            float(centered.square().sum(dim=1).mean()), rel=1e-2
        )
        assert sum(part.shares) == pytest.approx(1, abs=1e-2)
        energy = individual_score(codes, part.loadings, IndividualScore.energy)
        assert torch.allclose(energy, individual / (common + individual))
