"""The checks of maps on models whose truth is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from mmpretrain.explain.decomposition import CodesOrigin, Decomposition, fit
from mmpretrain.explain.deletion import FRACTIONS, ORDERS, _kept, deletion_curves
from mmpretrain.explain.opened import Opened
from mmpretrain.explain.sanity import ALIKE, Check, Sanity, rank_correlation, shuffled
from mmpretrain.explain.settings import AttributionForm, CommonScore, Settings, Wanted
from tests.explain.explained import linear_world
from tests.explain.test_saliency import identity_model, opened


@pytest.fixture(scope="module")
def world() -> tuple[Opened, Decomposition]:
    """The linear world, whose vectors are their own embeddings."""
    release = opened(identity_model(), {"first": 8, "second": 6})
    fitted = fit(linear_world(2000, 1), ("first", "second"), Settings(draws=5), CodesOrigin.closed_form)

    def processor(**samples: list[np.ndarray]) -> dict[str, dict[str, torch.Tensor]]:
        return {name: {"values": torch.from_numpy(np.stack(rows))} for name, rows in samples.items()}

    return replace(release, processor=processor), fitted


def test_a_map_of_a_linear_score_falls_faster_than_random_orders(
    world: tuple[Opened, Decomposition], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Inputs times weights are what such a score is the sum of; a map turned upside down does worse than chance."""
    release, fitted = world
    means = {name: torch.zeros(1, width, dtype=torch.float64) for name, width in (("first", 8), ("second", 6))}
    monkeypatch.setattr("mmpretrain.explain.deletion._mean_inputs", lambda *_: means)
    test = linear_world(12, 2)
    raws = [{name: test.embeds[name][row] for name in fitted.pair} for row in range(12)]
    keys = [f"s{row}" for row in range(12)]
    form = AttributionForm(CommonScore.product)
    curves = deletion_curves(release, fitted, Wanted(form=form), raws, keys)
    check = Check("first", "common", 0.0, *curves["first", "common"])
    assert check.kept is not None and check.kept[0] == 1 and min(check.kept) >= 0 and len(check.kept) == len(FRACTIONS)
    assert check.area is not None and check.area_random is not None and check.area < check.area_random
    assert not check.doubts


def test_the_mean_of_what_stays_lies_between_0_and_1() -> None:
    moves = np.tile(np.linspace(0, 1, len(FRACTIONS)), (1 + ORDERS, 1))
    own, random = _kept([moves, moves])
    assert own == pytest.approx((1 - np.array(FRACTIONS)).tolist()) and random == pytest.approx(own)
    assert _kept([]) == _kept([0 * moves]) == (None, None)
    assert Check("a", "own", None, own, random).area == pytest.approx(0.5)


def test_weights_are_shuffled_within_their_tensors_and_the_model_stays(world: tuple[Opened, Decomposition]) -> None:
    model = torch.nn.Sequential(torch.nn.Linear(7, 5), torch.nn.LayerNorm(5))
    before = [weights.clone() for weights in model.parameters()]
    other = shuffled(model, 0)
    for old, now, mixed in zip(before, model.parameters(), other.parameters(), strict=True):
        assert torch.equal(old, now) and torch.equal(old.flatten().sort().values, mixed.flatten().sort().values)
    assert not torch.equal(before[0], next(iter(other.parameters())))
    assert torch.equal(next(iter(shuffled(model, 0).parameters())), next(iter(other.parameters())))


def test_rank_correlations_share_the_places_of_equal_values() -> None:
    values = np.array([[1.0, 2.0], [2.0, 9.0]])
    assert rank_correlation(values, values**3) == pytest.approx(1)
    assert rank_correlation(values, -values) == pytest.approx(-1)
    assert rank_correlation(np.array([1.0, 2.0, 3.0]), np.array([1.0, 3.0, 2.0])) == pytest.approx(0.5)
    assert rank_correlation(values, 0 * values) is None and rank_correlation(values[0], values[1]) is None


def test_what_speaks_against_maps_is_said() -> None:
    curve = [1.0, 0.9, 0.0]
    bad = Check("left", "own", ALIKE, curve, [1.0, 0.1, 0.0])
    found = Sanity(3, [bad, Check("left", "common", None, None, None)])
    first, second = found.doubts
    assert "no more than random ones (deletion area 0.70, in random order 0.30)" in first
    assert "look much the same where the weights are shuffled (correlation 0.70)" in second
    assert found.to_json()["checks"][1]["area"] is None
