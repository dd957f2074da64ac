"""Accuracy, F1 and the area under the curve by hand, and what chance scores."""

from __future__ import annotations

import numpy as np
import pytest

from mmpretrain.evaluation.classification import classification_scores, majority_share


def test_two_classes_by_hand() -> None:
    margins = np.array([2.0, 1.0, -1.0, 0.5, -2.0])  # logit of class 1 less that of class 0
    labels = np.array([1, 1, 1, 0, 0])
    scores = classification_scores(np.stack([np.zeros(5), margins], axis=1), labels)
    assert scores["accuracy"] == pytest.approx(3 / 5)
    assert scores["accuracy/chance"] == pytest.approx(3 / 5)
    assert scores["f1"] == pytest.approx(2 * 2 / (2 * 2 + 1 + 1))
    assert scores["roc_auc"] == pytest.approx(5 / 6)  # of 6 (positive, negative) pairs, one is in the wrong order
    assert scores["roc_auc/chance"] == 0.5


def test_three_classes_by_hand() -> None:
    answers, labels = np.array([0, 0, 1, 1]), np.array([0, 0, 1, 2])
    scores = classification_scores(np.eye(3)[answers], labels)
    assert scores["accuracy"] == 0.75 and scores["accuracy/chance"] == 0.5
    assert scores["f1_macro"] == pytest.approx((1 + 2 / 3 + 0) / 3)
    assert scores["f1_weighted"] == pytest.approx((2 * 1 + 2 / 3 + 0) / 4)
    assert "roc_auc" not in scores and "f1" not in scores


def test_one_class_only_has_no_roc_auc() -> None:
    scores = classification_scores(np.array([[1.0, 0.0], [0.0, 1.0]]), np.array([0, 0]))
    assert scores == {"accuracy": 0.5, "accuracy/chance": 1.0, "f1": 0.0}


def test_random_logits_score_chance() -> None:
    draw = np.random.default_rng(0)
    scores = classification_scores(draw.normal(size=(4000, 2)), draw.integers(2, size=4000))
    assert scores["accuracy"] == pytest.approx(0.5, abs=0.03)
    assert scores["roc_auc"] == pytest.approx(0.5, abs=0.03)


def test_majority_share_ignores_absent_classes() -> None:
    assert majority_share(np.array([7, 7, 9, 7])) == 0.75
