"""The linear probe: reads what is there, scores chance where nothing is, and names what it cannot read."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import accuracy_score, balanced_accuracy_score, mean_absolute_error, r2_score, roc_auc_score
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from mmpretrain.config.evaluation import LinearProbeConfig
from mmpretrain.config.evaluation_sections import ChosenBy
from mmpretrain.evaluation.embeddings import Embeddings
from mmpretrain.evaluation.linear_probe import linear_probe
from mmpretrain.evaluation.similarity import unit_rows
from tests.evaluation.made_up import embeddings, unrelated


def test_separable_classes_are_read_perfectly_whatever_the_lengths() -> None:
    train, test = embeddings(seed=1), embeddings(seed=2)
    lengths = np.random.default_rng(0).uniform(0.1, 100, size=(len(test), 1)).astype(np.float32)
    test = replace(test, embeds={name: rows * lengths for name, rows in test.embeds.items()})
    scores = linear_probe(train, test, ["ant", "bee", "cat", "dog"])
    for subject in ("left", "right", "left+right"):
        assert scores[f"{subject}/accuracy"] == 1.0
        assert scores[f"{subject}/accuracy/chance"] == 0.25
    assert [name for name in scores if "recall" in name] == [
        f"left+right/recall/{c}" for c in ("ant", "bee", "cat", "dog")
    ]


def test_concatenation_joins_what_the_modalities_know() -> None:
    draw = np.random.default_rng(0)

    def parity(samples: int) -> Embeddings:
        bits = draw.integers(2, size=(samples, 2))
        noise = 0.1 * draw.normal(size=(2, samples, 4))
        sides = {name: np.eye(4)[bits[:, i]] + noise[i] for i, name in enumerate(("left", "right"))}
        return Embeddings(np.arange(samples), sides, labels=bits[:, 0] + 2 * bits[:, 1])

    scores = linear_probe(parity(200), parity(200))
    assert scores["left/accuracy"] < 0.65 and scores["right/accuracy"] < 0.65
    assert scores["left+right/accuracy"] > 0.98


def test_unrelated_embeddings_score_chance_and_twice_the_same() -> None:
    train, test = unrelated(600, 3, seed=1), unrelated(900, 3, seed=2)
    scores = linear_probe(train, test)
    assert scores["left/accuracy"] == pytest.approx(1 / 3, abs=0.06)
    assert scores == linear_probe(train, test)


def test_what_cannot_be_probed_is_named() -> None:
    good = embeddings()
    with pytest.raises(ValueError, match="held-out split has no labels"):
        linear_probe(good, replace(good, labels=None))
    with pytest.raises(ValueError, match="one label"):
        linear_probe(replace(good, labels=np.zeros(len(good), np.int64)), good)


def test_learned_representations_are_probed_beside_the_modalities() -> None:
    train, test = (
        replace(made, fused=made.embeds["left"], shared=made.embeds, unique={"left": made.embeds["left"]})
        for made in (embeddings(seed=1), embeddings(seed=2))
    )
    scores = linear_probe(train, test, ["ant", "bee", "cat", "dog"])
    subjects = [name.removesuffix("/accuracy") for name in scores if name.endswith("/accuracy")]
    assert subjects == ["left", "right", "left+right", "fused", "shared", "unique", "shared+unique"]
    assert scores["fused/accuracy"] == scores["unique/accuracy"] == scores["left/accuracy"]
    assert scores["shared/accuracy"] == scores["left+right/accuracy"]
    assert not [name for name in scores if "recall" in name and not name.startswith("left+right/")]


def test_samples_without_a_modality_are_left_out_where_it_is_read() -> None:
    """Rows of missing modalities hold nonsense; whatever it is, nothing changes."""
    scores = []
    for nonsense in (0.0, 1e6):
        splits = []
        for seed in (1, 2):
            made = embeddings(seed=seed)
            there = np.arange(len(made)) % 3 > 0
            left = np.where(there[:, None], made.embeds["left"], np.float32(nonsense))
            sides = {"left": left, "right": made.embeds["right"]}
            splits.append(replace(made, embeds=sides, fused=made.embeds["right"], present={"left": there}))
        scores.append(linear_probe(splits[0], splits[1]))
    assert scores[0] == scores[1]
    assert scores[0]["left/accuracy"] == 1.0


def test_shared_and_unique_are_read_together() -> None:
    """One bit is in what is shared, the other in what is unique: both together name the class, neither alone does."""
    draw = np.random.default_rng(0)

    def split(samples: int) -> Embeddings:
        bits = draw.integers(2, size=(samples, 2))
        shared, unique = (np.eye(4)[bits[:, i]] + 0.1 * draw.normal(size=(samples, 4)) for i in range(2))
        nothing = {name: draw.normal(size=(samples, 4)) for name in ("left", "right")}
        parts = ({"left": shared, "right": nothing["left"]}, {"left": nothing["right"], "right": unique})
        labels = bits[:, 0] + 2 * bits[:, 1]
        return Embeddings(np.arange(samples), nothing, labels=labels, shared=parts[0], unique=parts[1])

    scores = linear_probe(split(300), split(300))
    assert scores["shared/accuracy"] < 0.65 and scores["unique/accuracy"] < 0.65
    assert scores["shared+unique/accuracy"] > 0.98


def test_classes_are_scored_beside_their_frequency() -> None:
    train, test = embeddings(noise=2.0, seed=1), embeddings(noise=2.0, seed=2)
    scores = linear_probe(train, test)
    probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    rows = [unit_rows(side.embeds["left"].astype(np.float64)) for side in (train, test)]
    probe.fit(rows[0], train.labels)
    answers, shown = probe.predict(rows[1]), probe.predict_proba(rows[1])
    assert scores["left/accuracy"] == accuracy_score(test.labels, answers)
    assert scores["left/balanced_accuracy"] == pytest.approx(balanced_accuracy_score(test.labels, answers))
    assert scores["left/roc_auc"] == pytest.approx(roc_auc_score(test.labels, shown, multi_class="ovr"))


def test_the_strength_is_chosen_within_the_train_split() -> None:
    train, test = embeddings(noise=3.0, seed=1), embeddings(noise=3.0, seed=2)
    candidates = [10.0, 0.001, 0.1]
    scores = linear_probe(train, test, settings=LinearProbeConfig(candidates=candidates))
    rows = unit_rows(train.embeds["left"].astype(np.float64))
    parts = StratifiedKFold(5, shuffle=True, random_state=0)
    means = {
        c: cross_val_score(
            make_pipeline(StandardScaler(), LogisticRegression(C=c)), rows, train.labels, cv=parts
        ).mean()
        for c in sorted(candidates)
    }
    chosen = max(means, key=lambda c: means[c])
    assert scores["left/strength"] == chosen
    alone = linear_probe(train, test, settings=LinearProbeConfig(strength=chosen))
    assert "left/strength" not in alone and alone["left/accuracy"] == scores["left/accuracy"]
    assert test.labels is not None
    shuffled = replace(test, labels=np.roll(test.labels, 7))
    again = linear_probe(train, shuffled, settings=LinearProbeConfig(candidates=candidates))
    assert again["left/strength"] == chosen  # whatever the held-out labels are


def test_the_strength_may_be_chosen_by_balanced_accuracy() -> None:
    """Where a class is rare, saying "no" is right most often, and right for no class but one."""
    draw = np.random.default_rng(0)
    labels = (np.arange(300) % 10 == 0).astype(np.int64)
    rows = draw.normal(size=(300, 20)).astype(np.float32)
    rows[:, 0] += labels
    made = Embeddings(np.arange(300), {"left": rows}, labels=labels)
    found = {
        by: linear_probe(made, made, settings=LinearProbeConfig(candidates=[1e-6, 100.0], chosen_by=by))[
            "left/strength"
        ]
        for by in ChosenBy
    }
    assert found == {ChosenBy.accuracy: 1e-6, ChosenBy.balanced_accuracy: 100.0}
    assert LinearProbeConfig(chosen_by=ChosenBy.balanced_accuracy).problems()


def test_several_classes_and_measured_values_are_read() -> None:
    draw = np.random.default_rng(0)

    def made(form: str) -> Embeddings:
        rows = draw.normal(size=(300, 8)).astype(np.float32)
        unit = unit_rows(rows.astype(np.float64))
        labels = (unit[:, :3] > 0).astype(np.int64) if form == "several" else unit[:, 0] * 3 + 1
        if form == "several":
            labels = np.hstack([labels, np.ones((300, 1), np.int64)])  # one that all samples have
        return Embeddings(np.arange(300), {"left": rows}, labels=labels)

    several = linear_probe(made("several"), made("several"))
    assert several["left/average_precision"] > 0.95 and several["left/f1_micro"] > 0.9
    assert several["left/average_precision/chance"] == pytest.approx(0.625, abs=0.05)
    train, test = made("value"), made("value")
    values = linear_probe(train, test)
    ridge = make_pipeline(StandardScaler(), Ridge(alpha=1.0))
    sides = [unit_rows(side.embeds["left"].astype(np.float64)) for side in (train, test)]
    answers = ridge.fit(sides[0], train.labels).predict(sides[1])
    assert values["left/r2"] == pytest.approx(r2_score(test.labels, answers))
    assert values["left/mae"] == pytest.approx(mean_absolute_error(test.labels, answers))
    chosen = linear_probe(train, test, settings=LinearProbeConfig(candidates=[1e-4, 100.0]))
    assert chosen["left/strength"] == 100.0


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.full(80, np.nan), "labels of the train split are not finite"),
        (np.ones((80, 2), np.int64), "all samples of the train split have one label"),
    ],
)
def test_labels_that_teach_nothing_are_refused(labels: np.ndarray, message: str) -> None:
    made = replace(embeddings(), labels=labels)
    with pytest.raises(ValueError, match=message):
        linear_probe(made, made)


def test_too_few_samples_to_cross_validate_are_refused() -> None:
    made = embeddings(each=1)
    with pytest.raises(ValueError, match="folds is 5, and the train split has 4 samples"):
        linear_probe(made, made, settings=LinearProbeConfig(candidates=[1.0]))
