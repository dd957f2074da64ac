"""Votes of neighbors: against a loop over all samples, and what happens where similarities or votes are equal."""

from __future__ import annotations

import math
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from launcher.planning.checks import check_data
from launcher.planning.resources import Purpose
from mmpretrain.config.compose import ConfigError, compose
from mmpretrain.config.evaluation import EvaluationConfig, KnnConfig, Metric
from mmpretrain.distributed.world import World
from mmpretrain.evaluation import similarity
from mmpretrain.evaluation.embeddings import Embeddings
from mmpretrain.evaluation.evaluate import evaluate
from mmpretrain.evaluation.knn import knn, right_answers
from mmpretrain.evaluation.linear_probe import linear_probe
from mmpretrain.evaluation.similarity import unit_rows
from tests.evaluation.made_up import embeddings, unrelated

USUAL = KnnConfig()


def only(rows: np.ndarray, labels: list[int] | np.ndarray) -> Embeddings:
    """A split of one modality."""
    return Embeddings(np.arange(len(rows)), {"only": rows}, labels=np.asarray(labels))


def on_circle(*degrees: float) -> np.ndarray:
    """Unit rows [n, 2] at these angles."""
    angles = np.deg2rad(degrees)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1)


def naive_answer(train: np.ndarray, known: np.ndarray, query: np.ndarray, chosen: KnnConfig) -> tuple[int, bool]:
    """The published rule for one query, term by term: its class, and whether that leaves nothing to choose."""
    cosines = [float(query @ row / np.linalg.norm(query) / np.linalg.norm(row)) for row in train]
    found = sorted(zip(cosines, known.tolist(), strict=True), reverse=True)
    votes = dict.fromkeys(known.tolist(), 0.0)
    for cosine, label in found[: chosen.k]:
        votes[label] += math.exp(cosine / chosen.temperature)
    first, second = sorted(votes.values(), reverse=True)[:2]
    last_is_sure = chosen.k == len(found) or found[chosen.k - 1][0] - found[chosen.k][0] > 2 * similarity.TIE
    sure = last_is_sure and second < first * math.exp(-2 * similarity.TIE / chosen.temperature)
    return max(votes, key=lambda label: votes[label]), sure


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 50), k=st.integers(1, 60), temperature=st.sampled_from([0.01, 0.07, 1.0, 50.0]))
def test_answers_are_those_of_the_published_rule(seed: int, k: int, temperature: float) -> None:
    draw = np.random.default_rng(seed)
    train, test = draw.normal(size=(60, 5)), draw.normal(size=(40, 5))
    known, truth = draw.integers(4, size=60), draw.integers(4, size=40)
    chosen = KnnConfig(k, temperature)
    found = right_answers(unit_rows(train), unit_rows(test), known, truth, chosen)
    wanted = [naive_answer(train, known, row, chosen) for row in test]
    compared = [
        (float(answer == label), value)
        for (answer, sure), label, value in zip(wanted, truth, found, strict=True)
        if sure
    ]
    assert len(compared) >= 36 and all(right == value for right, value in compared)
    assert knn(only(train, known), only(test, truth), chosen)["only/accuracy"] == pytest.approx(found.mean())


def test_near_neighbors_outvote_a_majority_by_their_weight() -> None:
    train, known = on_circle(10, 40, 40.1), [0, 1, 1]
    query = only(on_circle(0), [0])
    assert knn(only(train, known), query, KnnConfig(3, 0.07))["only/accuracy"] == 1.0
    assert knn(only(train, known), query, KnnConfig(3, 10.0))["only/accuracy"] == 0.0
    assert knn(only(train, known), query, KnnConfig(1, 10.0))["only/accuracy"] == 1.0


@pytest.mark.parametrize("order", [[0, 1, 2, 3], [3, 2, 1, 0], [2, 0, 3, 1]])
def test_equal_neighbors_share_the_last_places_whatever_their_order(order: list[int]) -> None:
    """One neighbor is nearest; of three equal ones of two classes two have a place: each counts two thirds."""
    train, known = on_circle(0, 30, -30, 30)[order], np.array([0, 1, 1, 0])[order]
    weight = math.exp((math.cos(math.radians(30)) - 1) / 1.0)
    assert 1 + weight * 2 / 3 > weight * 4 / 3
    assert right_answers(train, on_circle(0), known, np.array([0]), KnnConfig(3, 1.0)).tolist() == [1.0]
    # Without the nearest, class 1 holds two of three equal ones.
    assert right_answers(train, -on_circle(0), known, np.array([1]), KnnConfig(2, 1.0)).tolist() == [1.0]


def test_level_votes_are_right_by_their_share() -> None:
    train, known = on_circle(20, -20, 90), np.array([0, 1, 2])
    for label, share in ((0, 0.5), (1, 0.5), (2, 0.0)):
        assert right_answers(train, on_circle(0), known, np.array([label]), KnnConfig(2)).tolist() == [share]


def test_what_rounding_tells_apart_counts_as_equal() -> None:
    """The same caption in two batches: one class is nearer by a rounding error, and gains nothing by it."""
    train = unit_rows(np.ones((40, 8)) + 1e-7 * np.random.default_rng(0).normal(size=(40, 8)))
    for temperature in (0.001, 0.07):
        chosen = KnnConfig(20, temperature)
        found = right_answers(train, unit_rows(np.ones((4, 8))), np.arange(40) % 4, np.arange(4), chosen)
        assert found.tolist() == [0.25] * 4


def test_collapsed_embeddings_score_a_constant_answer() -> None:
    labels = np.array([0, 1, 2, 3] * 10)
    same = only(np.ones((40, 3)), labels)
    assert knn(same, same, USUAL) == {"only/accuracy": pytest.approx(0.25), "only/accuracy/chance": 0.25}
    often_two = only(np.ones((40, 3)), np.where(labels == 3, 2, labels))
    rarely_two = only(np.ones((40, 3)), np.where(labels == 2, 1, labels))
    assert knn(often_two, rarely_two, USUAL)["only/accuracy"] == 0.0


def test_unrelated_embeddings_score_chance() -> None:
    scores = knn(unrelated(600, 3, seed=1), unrelated(900, 3, seed=2), USUAL)
    assert scores["left/accuracy"] == pytest.approx(1 / 3, abs=0.06)
    assert scores["left/accuracy/chance"] == pytest.approx(1 / 3, abs=0.06)


def test_subjects_and_chances_are_the_linear_probes() -> None:
    train, test = (
        replace(made, fused=made.embeds["left"], shared=made.embeds, unique={"left": made.embeds["left"]})
        for made in (embeddings(seed=1), embeddings(seed=2))
    )
    found, probe = knn(train, test, USUAL), linear_probe(train, test)
    assert list(found) == [name for name in probe if "/accuracy" in name]
    for name, value in found.items():
        assert value == (probe[name] if name.endswith("/chance") else 1.0)


def test_samples_without_a_modality_are_left_out_where_it_is_read() -> None:
    scores = []
    for nonsense in (0.0, 1e6):
        splits = []
        for seed in (1, 2):
            made = embeddings(seed=seed)
            there = np.arange(len(made)) % 3 > 0
            left = np.where(there[:, None], made.embeds["left"], np.float32(nonsense))
            splits.append(replace(made, embeds={**made.embeds, "left": left}, present={"left": there}))
        train, test = splits
        scores.append(knn(train, test, USUAL))
    assert scores[0] == scores[1] and scores[0]["left/accuracy"] == 1.0


def test_a_class_that_was_never_seen_is_never_answered() -> None:
    scores = knn(only(on_circle(0, 10), [0, 0]), only(on_circle(0, 10), [0, 7]), KnnConfig(1))
    assert scores["only/accuracy"] == 0.5


@pytest.mark.parametrize("chunk", [1, 7, 80, 1000])
def test_blocks_do_not_matter(chunk: int) -> None:
    train, test = embeddings(noise=3.0, seed=1), embeddings(noise=3.0, seed=2)
    sides = unit_rows(train.embeds["left"]), unit_rows(test.embeds["left"])
    assert train.labels is not None and test.labels is not None
    labels = train.labels, test.labels
    whole = right_answers(*sides, *labels, USUAL)
    assert 0.3 < whole.mean() < 1.0
    assert right_answers(*sides, *labels, USUAL, chunk).tolist() == whole.tolist()


def test_memory_is_bounded_by_a_block_even_where_all_are_tied(monkeypatch: pytest.MonkeyPatch) -> None:
    """All 2000 x 2000 similarities would take 32 MB, and their ties several times that."""
    monkeypatch.setattr(similarity, "BUDGET", 2**15)
    same = unit_rows(np.ones((2000, 2)))
    labels = np.arange(2000) % 5
    tracemalloc.start()
    right = right_answers(same, same, labels, labels, USUAL)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert right.tolist() == pytest.approx([0.2] * 2000)
    assert peak < 2**15 * 8 * 12


def test_more_neighbors_than_samples_is_named() -> None:
    made = embeddings(each=3)
    assert knn(made, made, KnnConfig(12))["left/accuracy/chance"] == 0.25
    with pytest.raises(ValueError, match=r"evaluation\.knn\.k is 13, and the train split has 12 samples with left"):
        knn(made, made, KnnConfig(13))
    there = np.arange(12) > 2
    with pytest.raises(ValueError, match=r"knn\.k is 12, and the train split has 9 samples with right: set it to 9"):
        knn(replace(made, present={"right": there}), made, KnnConfig(12))


def test_more_neighbors_than_samples_is_found_before_training(digits: Path) -> None:
    tokens = ["data=digits", f"data.path={digits}", "evaluation.final=[knn]", "evaluation.knn.k=5000"]
    (problem,) = check_data(compose(tokens), Purpose.run).problems
    assert "needs at least 5000 samples of train and can use" in problem
    others = [*tokens[:2], tokens[3], "evaluation.final=[linear_probe]"]
    assert check_data(compose(others), Purpose.run).problems == ()
    (problem,) = check_data(compose([*tokens[:3], "evaluation.max_samples=10"]), Purpose.run).problems
    assert "needs at least 20 samples of train and can use 10" in problem


def test_settings_come_from_the_config() -> None:
    train, test = only(on_circle(10, 40, 40.1), [0, 1, 1]), only(on_circle(0), [0])

    def accuracy(*tokens: str) -> float:
        chosen = compose(["evaluation.final=[knn]", *tokens]).evaluation
        assert chosen.final == [Metric.knn]
        splits = {"train": train, "test": test}
        return evaluate(chosen.final, splits.__getitem__, World.single(), chosen)["knn/only/accuracy"]

    assert accuracy("evaluation.knn.k=3") == 1.0
    assert accuracy("evaluation.knn.k=3", "evaluation.knn.temperature=10") == 0.0
    assert accuracy("evaluation.knn.k=1", "evaluation.knn.temperature=10") == 1.0
    assert (EvaluationConfig().knn.k, EvaluationConfig().knn.temperature) == (20, 0.07)


def test_settings_that_cannot_be_are_refused() -> None:
    with pytest.raises(ConfigError) as caught:
        compose(["evaluation.knn.k=0", "evaluation.knn.temperature=0"])
    assert caught.value.problems == [
        "evaluation.knn.k is 0: it must be at least 1",
        "evaluation.knn.temperature is 0.0: it must be above 0",
    ]
