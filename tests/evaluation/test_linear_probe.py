"""The linear probe: reads what is there, scores chance where nothing is, and names what it cannot read."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from mmpretrain.evaluation.embeddings import Embeddings
from mmpretrain.evaluation.linear_probe import linear_probe
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
