"""Scores of answers: against scikit-learn, and where a class or a spread is missing."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import (
    average_precision_score,
    balanced_accuracy_score,
    f1_score,
    mean_absolute_error,
    mean_squared_error,
    r2_score,
    roc_auc_score,
)

from mmpretrain.evaluation.bootstrap import Measured
from mmpretrain.evaluation.probe_scores import class_answers, several_answers, value_answers


def plain(scores: dict[str, float | Measured]) -> dict[str, float]:
    return {name: score.value if isinstance(score, Measured) else score for name, score in scores.items()}


def classes(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Labels int [n] and probabilities [n, C] that know something of them, in steps, so that some are tied."""
    draw = np.random.default_rng(seed)
    labels = draw.integers(0, count, 150)
    raw = np.round(draw.random((150, count)) + np.eye(count)[labels], 1)
    return labels, raw / raw.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("count", [2, 4])
def test_classes_as_scikit_learn_scores_them(count: int) -> None:
    labels, probability = classes(count)
    found = plain(class_answers(probability.argmax(axis=1), probability, np.arange(count), labels))
    shown = probability[:, 1] if count == 2 else probability
    assert found["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(labels, probability.argmax(axis=1)))
    assert found["roc_auc"] == pytest.approx(roc_auc_score(labels, shown, multi_class="ovr", average="macro"))
    assert (found["roc_auc/chance"], found["balanced_accuracy/chance"]) == (0.5, 1 / count)


def test_classes_that_the_probe_or_the_held_out_split_lacks() -> None:
    labels, probability = classes(3)
    labels[labels == 2] = 7  # never learned
    found = plain(class_answers(probability.argmax(axis=1), probability, np.array([0, 1, 2]), labels))
    areas = [roc_auc_score(labels == label, probability[:, label]) for label in (0, 1)]
    assert found["roc_auc"] == pytest.approx(np.mean(areas))
    assert found["balanced_accuracy"] == pytest.approx(
        np.mean([np.mean(probability.argmax(axis=1)[labels == label] == label) for label in (0, 1, 7)])
    )
    one = plain(class_answers(np.zeros(3, int), np.ones((3, 2)) / 2, np.array([0, 1]), np.zeros(3, int)))
    assert "roc_auc" not in one and one["balanced_accuracy"] == 1.0


def test_several_classes_as_scikit_learn_scores_them() -> None:
    draw = np.random.default_rng(0)
    labels = (draw.random((200, 5)) < [0.5, 0.3, 0.2, 0.1, 0.0]).astype(np.int64)
    probability = np.round(np.clip(labels * 0.4 + draw.random((200, 5)) * 0.7, 0, 1), 1)
    found, there = plain(several_answers(probability, labels)), slice(0, 4)  # the last class never occurs
    answers = probability[:, there] >= 0.5
    assert found["average_precision"] == pytest.approx(
        average_precision_score(labels[:, there], probability[:, there], average="macro")
    )
    assert found["average_precision/chance"] == pytest.approx(labels[:, there].mean())
    for average in ("micro", "macro", "weighted"):
        assert found[f"f1_{average}"] == pytest.approx(f1_score(labels[:, there], answers, average=average))
    assert found["roc_auc"] == pytest.approx(roc_auc_score(labels[:, there], probability[:, there], average="macro"))
    with pytest.raises(ValueError, match="no sample of the held-out split has any class"):
        several_answers(probability, np.zeros_like(labels))


def test_values_as_scikit_learn_scores_them_beside_a_constant() -> None:
    draw = np.random.default_rng(0)
    truth, known = draw.normal(3, 2, 100), draw.normal(2, 2, 80)
    found = plain(value_answers(truth + draw.normal(size=100), truth, known))
    constant = np.full(100, known.mean())
    assert found["r2/chance"] == pytest.approx(r2_score(truth, constant)) and found["r2/chance"] < 0
    assert found["mae/chance"] == pytest.approx(mean_absolute_error(truth, constant))
    assert (
        found["mse/chance"] == pytest.approx(mean_squared_error(truth, constant)) and found["mse"] < found["mse/chance"]
    )
    assert found["r2"] > 0.5 and found["mae"] < found["mae/chance"]
    with pytest.raises(ValueError, match="have one value"):
        value_answers(truth, np.ones(100), known)
    with pytest.raises(ValueError, match="not finite"):
        value_answers(truth, np.where(truth > 3, np.nan, truth), known)
