"""From embeddings to common and individual codes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from mmpretrain.evaluation.embeddings import Embeddings
from mmpretrain.explain.decomposition import CodesOrigin, Whitening, code_correlations, fit, split_codes
from mmpretrain.explain.settings import AttributionForm, Settings
from tests.evaluation.made_up import unrelated
from tests.explain.explained import linear_world

PAIR = ("first", "second")


def test_what_exceeds_chance_is_common() -> None:
    world = linear_world(4000, 1)
    fitted = fit(world, PAIR, Settings(), CodesOrigin.closed_form)
    assert fitted.rho.tolist() == pytest.approx([0.9, 0.6], abs=0.03) and fitted.exceeding == 2
    # Five and four latent dimensions; the rest is noise of less than a percent.
    assert [fitted.parts[name].components for name in PAIR] == [5, 4]
    codes = split_codes(fitted, world)
    for name in PAIR:
        joint = torch.cov(torch.cat([codes[name].common, codes[name].individual], dim=1).T)
        assert (joint - torch.eye(len(joint))).abs().max() < 1e-3
    crossed = codes["first"].individual.T @ codes["second"].common / 3999
    assert crossed.abs().max() < 1e-3


def test_unrelated_modalities_have_nothing_in_common() -> None:
    fitted = fit(unrelated(400, 3), ("left", "right"), Settings(), CodesOrigin.closed_form)
    assert len(fitted.rho) == 0 and fitted.parts["left"].shares[0] == 0
    assert float(fitted.spectrum[0]) < fitted.threshold < 0.5


def test_settings_choose_the_dimensions() -> None:
    world = linear_world(4000, 1)
    fitted = fit(world, PAIR, Settings(common=1, individual=2, draws=5), CodesOrigin.closed_form)
    assert len(fitted.rho) == 1 and [p.loadings[1].shape[1] for p in fitted.parts.values()] == [2, 2]
    weights = fitted.weights(AttributionForm(weighted=True))
    assert fitted.weights(AttributionForm()) is None and weights is not None and torch.equal(weights, fitted.rho)
    narrow = fit(world, PAIR, Settings(dimensions=3, draws=5), CodesOrigin.closed_form)
    assert [part.components for part in narrow.parts.values()] == [3, 3]
    few = fit(world.only(np.arange(4000) < 60), PAIR, Settings(common=1, draws=5), CodesOrigin.closed_form)
    assert [part.components for part in few.parts.values()] == [3, 3]  # one for every 20 samples


def test_directions_hold_on_other_samples() -> None:
    fitted, other = fit(linear_world(4000, 1), PAIR, Settings(), CodesOrigin.closed_form), linear_world(4000, 2)
    held = [torch.from_numpy(other.embeds[name]).double() @ fitted.directions[name] for name in PAIR]
    assert code_correlations(*held)[:2].tolist() == pytest.approx([0.9, 0.6], abs=0.04)


def test_a_model_that_decomposes_keeps_its_own_codes() -> None:
    world = linear_world(4000, 1)
    closed = fit(world, PAIR, Settings(common=2, draws=5), CodesOrigin.closed_form)
    codes = split_codes(closed, world)
    own = replace(
        world,
        shared={name: code.common.numpy() for name, code in codes.items()},
        unique={name: code.individual.numpy() for name, code in codes.items()},
    )
    fitted = fit(own, PAIR, Settings(draws=5), CodesOrigin.model)
    assert all(part.maps is None for part in fitted.parts.values())
    assert torch.allclose(fitted.rho, closed.rho, atol=1e-4) and torch.allclose(fitted.spectrum, closed.spectrum)
    for name in PAIR:
        assert fitted.parts[name].shares == pytest.approx(closed.parts[name].shares, abs=1e-3)
        # The closed form's ridge leaves its codes a little smaller than white.
        torch.testing.assert_close(split_codes(fitted, own)[name].common, codes[name].common, rtol=1e-2, atol=1e-2)


def test_codes_of_a_model_count_as_white_ones_whatever_their_scale() -> None:
    world, draws = linear_world(4000, 1), np.random.default_rng(0)
    codes = split_codes(fit(world, PAIR, Settings(common=2, draws=5), CodesOrigin.closed_form), world)

    def own(*, mixed: bool) -> Embeddings:
        parts = {}
        for part in ("common", "individual"):
            rows = {name: getattr(code, part).numpy() for name, code in codes.items()}
            mixing = {n: 7 * draws.normal(size=(r.shape[1],) * 2) for n, r in rows.items()}
            parts[part] = {n: r @ mixing[n] + 3 for n, r in rows.items()} if mixed else rows
        return replace(world, shared=parts["common"], unique=parts["individual"])

    white, found = (fit(own(mixed=m), PAIR, Settings(draws=5), CodesOrigin.model) for m in (False, True))
    for name in PAIR:
        part, expected = found.parts[name], white.parts[name]
        assert part.shares == pytest.approx(expected.shares) and all(0 <= share <= 1 for share in part.shares)
        for one, other in zip(part.loadings, expected.loadings, strict=True):
            torch.testing.assert_close(one.square().sum(dim=1), other.square().sum(dim=1))


def test_a_code_that_does_not_vary_is_left_out() -> None:
    rows = torch.randn(50, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    constant = torch.cat([rows, torch.full((50, 1), 4.0)], dim=1)
    white = Whitening.of(constant)(constant)
    assert not white[:, 2].any() and torch.allclose(torch.cov(white.T)[:2, :2], torch.eye(2).double())


def test_samples_without_a_modality_do_not_count() -> None:
    world = linear_world(500, 1)
    there = np.arange(500) % 5 > 0
    nonsense = np.where(there[:, None], world.embeds["first"], 1e6)
    lacking = replace(world, embeds={**world.embeds, "first": nonsense}, present={"first": there})
    found, expected = (fit(e, PAIR, Settings(draws=5), CodesOrigin.closed_form) for e in (lacking, world.only(there)))
    assert torch.equal(found.spectrum, expected.spectrum) and found.samples == 400


def test_what_cannot_be_decomposed_is_named() -> None:
    few = Embeddings(np.arange(9), {name: np.ones((9, 2)) for name in PAIR})
    with pytest.raises(ValueError, match="9 samples have both first and second: correlations need at least 40"):
        fit(few, PAIR, Settings(), CodesOrigin.closed_form)
    with pytest.raises(ValueError, match="99 common dimensions were asked for: there are between 0 and 4"):
        fit(linear_world(500, 1), PAIR, Settings(common=99), CodesOrigin.closed_form)
    with pytest.raises(ValueError, match="codes of its own: leave out --common and --individual"):
        fit(linear_world(500, 1), PAIR, Settings(individual=1), CodesOrigin.model)
