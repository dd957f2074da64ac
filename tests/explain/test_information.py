"""The information report says of made-up worlds what they were made of."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import numpy as np
import pytest
from matplotlib.figure import Figure

from mmpretrain.evaluation.embeddings import Embeddings
from mmpretrain.explain.decomposition import CodesOrigin, code_correlations, split_codes
from mmpretrain.explain.information import DimensionVerdict, Report, advice, information_report
from mmpretrain.explain.information_figures import draw_report, draw_spectrum
from mmpretrain.explain.settings import Settings
from tests.evaluation.made_up import unrelated
from tests.explain.explained import linear_world

PAIR = ("first", "second")
FACTORS = {"shared": 2, "own_first": 2, "own_second": 2}


def labeled(seed: int, samples: int = 2000) -> Embeddings:
    """Two vectors that share one sign and have one of their own each, at known coordinates; labels are these signs."""
    draw = np.random.default_rng(seed)
    signs = draw.integers(2, size=(3, samples))
    noise = draw.normal(size=(2, samples, 4))
    first = noise[0] + 4 * np.stack([signs[0], signs[1], 0 * signs[0], 0 * signs[0]], axis=1)
    second = noise[1] + 4 * np.stack([0 * signs[0], signs[2], signs[0], 0 * signs[0]], axis=1)
    labels = np.ravel_multi_index(tuple(signs), (2, 2, 2))
    return Embeddings(np.arange(samples), {"first": first, "second": second}, labels=labels)


def report(settings: Settings, world: tuple[Embeddings, Embeddings], **factors: int) -> Report:
    """The report in closed form on train and held-out samples of a world."""
    pair = (*world[0].embeds,)
    return information_report(*world, (pair[0], pair[1]), settings, CodesOrigin.closed_form, factors)


@pytest.mark.parametrize(
    ("settings", "verdict", "text"),
    [
        (Settings(draws=20), DimensionVerdict.fits, "2 common directions are enough"),
        (
            Settings(common=1, draws=20),
            DimensionVerdict.too_small,
            r"1 common direction is too few: .* in 1 more .*try --common 2",
        ),
        (
            Settings(common=4, draws=20),
            DimensionVerdict.too_large,
            r"4 common directions are too many: only 2 .*try --common 2",
        ),
    ],
)
def test_verdicts_on_the_linear_world(settings: Settings, verdict: DimensionVerdict, text: str) -> None:
    found = report(settings, (linear_world(3000, 1), linear_world(3000, 2)))
    assert found.verdict is verdict and not found.probes
    assert re.match(text, advice(found))
    assert found.held_out[:2].tolist() == pytest.approx([0.9, 0.6], abs=0.05)
    ranks = found.retrieval["common score"]
    assert ranks["median_rank"] < 0.7 * ranks["median_rank/chance"]
    assert "cosine of embeddings" not in found.retrieval  # 8 and 6 dimensions


def test_probes_and_coordinates_say_where_labels_are() -> None:
    found = report(Settings(draws=20), (labeled(1), labeled(2)), **FACTORS)
    scores = {(score.subject, score.name): score.value for score in found.probes}
    assert {score.chance for score in found.probes} == {0.5}
    for subject in ("common", "common first", "both"):
        assert scores[subject, "shared"] > 0.97
    for subject in ("individual", "individual second"):
        assert abs(scores[subject, "shared"] - 0.5) < 0.07
        assert scores[subject, "own_second"] > 0.97
    assert (
        abs(scores["common", "own_first"] - 0.5) < 0.07 and abs(scores["individual first", "own_second"] - 0.5) < 0.07
    )
    content = json.loads(json.dumps(found.to_json()))
    shares = content["modalities"]["second"]["parts_of_coordinates"]
    assert np.argmax(shares["shared"]) == 2 and np.argmin(shares["own"]) == 2
    assert content["common_dimension"] == 1 and content["verdict"] == "fits"
    for split in ("held_out", "in_sample"):
        assert sum(content["modalities"]["first"]["parts"][split].values()) == pytest.approx(1)
    assert content["shared"]["first"] == content["modalities"]["first"]["parts"]["held_out"]["shared"]
    assert content["sentences"][0].startswith("second explains ")
    assert draw_report(found, "made up").axes


def test_nothing_shared_is_said() -> None:
    found = report(Settings(draws=50), (unrelated(400, 3, 1), unrelated(400, 3, 2)))
    assert found.verdict is DimensionVerdict.fits and advice(found).startswith(
        "nothing is shared: no direction of the embeddings correlates"
    )
    assert {score.subject.split()[0] for score in found.probes} == {"individual", "both"}
    assert "common score" not in found.retrieval and draw_report(found, "unrelated").axes


def test_individual_codes_of_a_model_are_held_to_a_null_of_their_own() -> None:
    splits = []
    for seed in (1, 2):
        world = linear_world(2000, seed)
        # Codes as a model would give them that took the weaker of two correlations for individual.
        parts = {name: rows / rows.std(axis=0) for name, rows in world.embeds.items()}
        splits.append(replace(world, shared={n: p[:, :1] for n, p in parts.items()}, unique=parts))
    found = information_report(splits[0], splits[1], PAIR, Settings(draws=20), CodesOrigin.model, {})
    assert found.verdict is DimensionVerdict.too_small and found.leftover.exceeding == 2
    assert found.leftover.threshold < 0.2 and len(found.decomposition.rho) == 1


def test_codes_that_leave_a_correlation_out_do_not_hide_it() -> None:
    """A model whose individual codes were trained away from what its one common dimension had no room for."""
    worlds = [linear_world(2000, seed) for seed in (1, 2)]
    directions = report(Settings(draws=20), (worlds[0], worlds[1])).decomposition.directions
    splits = []
    for world in worlds:
        codes = {name: rows @ directions[name].numpy() for name, rows in world.embeds.items()}
        shared, unique = ({name: found[:, part] for name, found in codes.items()} for part in ([0], [-1]))
        splits.append(replace(world, shared=shared, unique=unique))
    found = information_report(splits[0], splits[1], PAIR, Settings(draws=20), CodesOrigin.model, {})
    assert found.leftover.exceeding == 0 and found.decomposition.spectrum[1] > 0.5
    assert found.verdict is DimensionVerdict.too_small
    assert re.match(
        "1 common direction is too few: 2 directions of the embeddings .*components.common=2", advice(found)
    )


def gaussian(samples: int, width: int, seed: int) -> Embeddings:
    """Two modalities without any relation."""
    draws = np.random.default_rng(seed).normal(size=(2, samples, width))
    return Embeddings(np.arange(samples), dict(zip(PAIR, draws, strict=True)))


def bars(found: Report) -> dict[str, list[float]]:
    """Label -> heights of the spectrum's bars."""
    axes = Figure().subplots()
    draw_spectrum(axes, found)
    return {str(c.get_label()): [bar.get_height() for bar in c] for c in axes.containers}


def test_more_common_dimensions_than_places_are_drawn() -> None:
    world = (gaussian(1000, 45, 1), gaussian(1000, 45, 2))
    found = report(Settings(common=42, dimensions=45, draws=2), world)
    assert len(bars(found)["fitted, common (42)"]) == 40


def test_the_spectrum_of_a_model_shows_its_own_codes() -> None:
    splits = []
    for seed in (1, 2):
        world = linear_world(2000, seed)
        codes = {name: rows[:, :1] for name, rows in world.embeds.items()}
        splits.append(replace(world, shared=codes, unique=codes))
    found = information_report(splits[0], splits[1], PAIR, Settings(draws=5), CodesOrigin.model, {})
    own = code_correlations(*(codes.common for codes in split_codes(found.decomposition, splits[0]).values()))
    assert bars(found)["common codes (1)"] == pytest.approx(own.tolist())
    assert bars(found)["common codes (1)"][0] < bars(found)["embeddings, closed form"][0]


def test_cut_individual_codes_are_held_to_a_null_of_their_own() -> None:
    """Two of 30 dimensions reach less by chance than all of them."""
    world = (gaussian(800, 30, 1), gaussian(800, 30, 2))
    found = report(Settings(common=1, individual=2, dimensions=30, draws=20), world)
    assert found.leftover.threshold < 0.7 * found.decomposition.threshold
    whole = report(Settings(common=1, dimensions=30, draws=20), world)
    assert whole.leftover.threshold == whole.decomposition.threshold
