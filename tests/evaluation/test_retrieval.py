"""Retrieval: ranks by hand, ties, chance, chunks, and samples that lack a modality."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmpretrain.evaluation.embeddings import Embeddings
from mmpretrain.evaluation.retrieval import class_scores, exact_scores, pair_places, retrieval
from mmpretrain.evaluation.similarity import unit_rows
from tests.evaluation.made_up import embeddings, unrelated


def two(left: np.ndarray, right: np.ndarray, labels: np.ndarray | None = None) -> Embeddings:
    """Embeddings of two modalities."""
    return Embeddings(np.arange(len(left)), {"left": left, "right": right}, labels=labels)


def test_equal_modalities_are_found_first() -> None:
    scores = retrieval(two(np.eye(20), 3 * np.eye(20)))
    for direction in ("left->right", "right->left"):
        assert scores[f"{direction}/recall@1"] == 1.0
        assert scores[f"{direction}/median_rank"] == 1.0
        assert scores[f"{direction}/recall@5/chance"] == 5 / 20
        assert scores[f"{direction}/median_rank/chance"] == 10.5
        assert f"{direction}/class_recall@1" not in scores


def test_ranks_by_hand() -> None:
    angles = np.deg2rad([0, 10, 40, 90])
    points = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    queries = points[[1, 0, 3, 2]]  # each query lies on the item of its neighbor
    ahead, tied = pair_places(queries, points)
    assert ahead.tolist() == [1, 1, 1, 3]
    assert tied.tolist() == [1, 1, 1, 1]
    scores = exact_scores(ahead, tied, (1, 2))
    assert (scores["recall@1"], scores["recall@2"], scores["median_rank"]) == (0.0, 0.75, 2.0)


def test_collapsed_embeddings_score_exactly_chance() -> None:
    labels = np.arange(40) % 4
    scores = retrieval(two(np.ones((40, 3)), np.ones((40, 3)), labels))
    for k in (1, 5, 10):
        assert scores[f"left->right/recall@{k}"] == pytest.approx(k / 40)
    assert scores["left->right/median_rank"] == scores["left->right/median_rank/chance"]
    assert scores["left->right/class_recall@1"] == 0.0  # ties with other classes count against the model
    assert scores["left->right/class_recall@1/chance"] == 0.25


def test_identical_captions_share_their_place() -> None:
    captions = np.repeat(np.eye(5), 4, axis=0)  # every caption belongs to 4 samples
    jitter = 1e-7 * np.random.default_rng(0).normal(size=captions.shape)
    scores = retrieval(two(captions + jitter, captions, np.repeat(np.arange(5), 4)))
    assert scores["left->right/recall@1"] == pytest.approx(1 / 4)
    assert scores["left->right/recall@5"] == 1.0
    assert scores["left->right/median_rank"] == 2.5
    assert scores["left->right/class_recall@1"] == 1.0


def test_unrelated_embeddings_score_chance() -> None:
    scores = retrieval(unrelated(1000, 5))
    assert scores["left->right/recall@10"] == pytest.approx(0.01, abs=0.01)
    assert scores["left->right/median_rank"] == pytest.approx(500.5, rel=0.1)
    assert scores["left->right/class_recall@1"] == pytest.approx(0.2, abs=0.05)
    assert scores["left->right/class_recall@1/chance"] == pytest.approx(0.2, abs=0.01)


@settings(max_examples=25, deadline=None)
@given(chunk=st.integers(1, 90), seed=st.integers(0, 5))
def test_chunks_do_not_matter(chunk: int, seed: int) -> None:
    made = embeddings(noise=1.0, seed=seed)
    left, right = (unit_rows(made.embeds[name]).astype(np.float64) for name in ("left", "right"))
    assert made.labels is not None
    for whole, parts in zip(pair_places(left, right), pair_places(left, right, chunk), strict=True):
        assert np.array_equal(whole, parts)
    assert class_scores(left, right, made.labels) == class_scores(left, right, made.labels, chunk)


def test_different_widths_are_refused() -> None:
    with pytest.raises(ValueError, match=r"one width, these have 3 and 4.*embed_dim"):
        retrieval(two(np.eye(4)[:, :3], np.eye(4)))


def test_samples_without_a_modality_are_neither_queries_nor_items() -> None:
    made = embeddings()
    there = np.arange(len(made)) % 4 > 0
    sides = {"left": np.where(there[:, None], made.embeds["left"], np.float32(7)), "right": made.embeds["right"]}
    found = retrieval(replace(made, embeds=sides, present={"left": there}))
    assert found == retrieval(made.only(there))
    assert found["left->right/recall@1/chance"] == 1 / there.sum()
    assert retrieval(replace(made, present={"left": there & False})) == {}


@pytest.mark.parametrize("factor", [1e-38, 1e-25, 1e20, 1e37])
def test_embeddings_of_any_length_count_by_their_direction(factor: float) -> None:
    rows = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
    scaled = (rows.astype(np.float64) * factor).astype(np.float32)
    assert np.allclose(unit_rows(scaled), unit_rows(rows), atol=1e-6)
