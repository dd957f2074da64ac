"""Factor probes: what is in the embeddings is found, what is not is at chance, and synergy needs a code of its own."""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegressionCV

from mmpretrain.config.evaluation import FactorsConfig as EvaluationSettings
from mmpretrain.config.evaluation import Search
from mmpretrain.data.factor_codes import decode_factors, encode_factors
from mmpretrain.evaluation.embeddings import Embeddings
from mmpretrain.evaluation.factor_probes import factor_probes

FACTORS = {"shape": 3, "color": 4, "synergy": 2}


def made(samples: int, seed: int, joint: bool = False) -> Embeddings:
    """Left holds the shape, right the color, both with noise; joint: fused holds their combination.

    Synergy is 1 for a sixth of the combinations, and follows from neither factor.
    """
    draw = np.random.default_rng(seed)
    shape, color = draw.integers(3, size=samples), draw.integers(4, size=samples)
    values = {"shape": shape, "color": color, "synergy": (shape == color).astype(np.int64)}
    noise = 0.05 * draw.normal(size=(3, samples, 12))
    embeds = {"left": np.eye(3)[shape] + noise[0, :, :3], "right": np.eye(4)[color] + noise[1, :, :4]}
    fused = np.eye(12)[4 * shape + color] + noise[2]
    labels = encode_factors(values, FACTORS)
    return Embeddings(np.arange(samples), embeds, labels=labels, fused=fused if joint else None)


def test_codes_are_mixed_radix_with_the_first_factor_most_significant() -> None:
    values = {"shape": np.array([0, 2, 2]), "color": np.array([1, 0, 3]), "synergy": np.array([1, 0, 1])}
    codes = encode_factors(values, FACTORS)
    assert codes.tolist() == [3, 16, 23]
    assert {name: column.tolist() for name, column in decode_factors(codes, FACTORS).items()} == {
        name: column.tolist() for name, column in values.items()
    }


def test_single_factors_are_read_and_their_combination_only_where_it_is_coded() -> None:
    scores = factor_probes(made(900, 1, joint=True), made(900, 2, joint=True), FACTORS)
    for subject in ("left+right", "fused"):
        assert scores[f"{subject}/shape/balanced_accuracy"] > 0.99
        assert scores[f"{subject}/color/balanced_accuracy"] > 0.99
    assert scores["left+right/shape/balanced_accuracy/chance"] == pytest.approx(1 / 3)
    assert scores["fused/synergy/weighted_balanced_accuracy"] > 0.99 and scores["fused/synergy/roc_auc"] > 0.99
    for subject in ("left+right", "one_hot"):
        # The best additive answer knows only that color 3 excludes it.
        assert scores[f"{subject}/synergy/balanced_accuracy"] < 0.7
        assert scores[f"{subject}/synergy/roc_auc"] < 0.75
    assert scores["one_hot/synergy/roc_auc"] == pytest.approx(scores["left+right/synergy/roc_auc"], abs=0.05)
    assert not [name for name in scores if name.startswith("one_hot/") and "synergy" not in name]


def test_rare_factors_are_found_by_the_weighted_probe() -> None:
    """A weak sign of a rare class never makes it the likelier answer, and still orders the samples."""
    draw = np.random.default_rng(0)

    def split(samples: int) -> Embeddings:
        rare = (draw.random(samples) < 0.05).astype(np.int64)
        return Embeddings(
            np.arange(samples), {"only": 0.8 * rare[:, None] + draw.normal(size=(samples, 1))}, labels=rare
        )

    scores = factor_probes(split(4000), split(4000), {"rare": 2})
    assert scores["only/rare/balanced_accuracy"] < 0.52
    assert scores["only/rare/weighted_balanced_accuracy"] > 0.6 and scores["only/rare/roc_auc"] > 0.65
    assert not [name for name in scores if name.startswith("one_hot")]


def test_shared_and_unique_are_read_together() -> None:
    train, test = made(600, 1), made(600, 2)
    train, test = (
        replace(s, shared={"left": s.embeds["left"]}, unique={"right": s.embeds["right"]}) for s in (train, test)
    )
    scores = factor_probes(train, test, FACTORS)
    assert {name.split("/")[0] for name in scores} == {"left+right", "shared+unique", "one_hot"}
    assert scores["shared+unique/color/balanced_accuracy"] == scores["left+right/color/balanced_accuracy"]


def test_samples_without_a_modality_are_left_out_where_it_is_read() -> None:
    scores = []
    for nonsense in (0.0, 1e4):
        splits = []
        for seed in (1, 2):
            split = made(600, seed, joint=True)
            there = np.arange(600) % 2 > 0
            left = np.where(there[:, None], split.embeds["left"], nonsense)
            splits.append(replace(split, embeds={**split.embeds, "left": left}, present={"left": there}))
        scores.append(factor_probes(splits[0], splits[1], FACTORS))
    assert scores[0] == scores[1] and scores[0]["left+right/shape/balanced_accuracy"] > 0.99


def test_what_cannot_be_probed_is_named() -> None:
    good = made(100, 1)
    with pytest.raises(ValueError, match=r"factors needs factors, which the dataset's dataset\.json does not name"):
        factor_probes(good, good, {})
    with pytest.raises(ValueError, match="factors needs labels in both splits"):
        factor_probes(good, replace(good, labels=None), FACTORS)
    with pytest.raises(ValueError, match="all samples of the held-out split have one value of shape"):
        assert good.labels is not None
        factor_probes(good, good.only(good.labels // 8 == 0), FACTORS)


def test_a_searched_probe_stands_beside_the_fixed_one() -> None:
    """The very estimator of the published notebook, on features as they are; everything else stays as it is."""
    train, test = made(300, 1, joint=True), made(300, 2, joint=True)
    fixed = factor_probes(train, test, FACTORS)
    both = factor_probes(train, test, FACTORS, EvaluationSettings(search=Search.final))
    assert {name: both[name] for name in fixed} == fixed
    added = {name.rpartition("/")[2] for name in both.keys() - fixed.keys() if not name.endswith("/chance")}
    assert added == {"searched_balanced_accuracy", "strength"}
    assert train.labels is not None and test.labels is not None
    known, truth = (decode_factors(labels, FACTORS)["synergy"] for labels in (train.labels, test.labels))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        published = LogisticRegressionCV(Cs=5, scoring="balanced_accuracy").fit(train.fused, known)
        expected = published.score(test.fused, truth)
    assert both["fused/synergy/searched_balanced_accuracy"] == pytest.approx(expected, abs=1e-12)
    assert both["fused/synergy/strength"] == np.ravel(published.C_)[0]
    assert both["one_hot/synergy/searched_balanced_accuracy/chance"] == 0.5


def test_a_value_that_is_too_rare_to_search_is_named() -> None:
    rare = np.array([0] * 60 + [1] * 4)
    split = Embeddings(np.arange(64), {"only": rare[:, None] + 0.1}, labels=rare)
    with pytest.raises(ValueError, match="needs 5 samples of every value of rare in the probe split, which has 4 of"):
        factor_probes(split, split, {"rare": 2}, EvaluationSettings(search=Search.final))
