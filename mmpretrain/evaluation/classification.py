"""Scores of a classifier from its logits, beside chance. Shapes: n samples, C classes."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from sklearn.metrics import accuracy_score, f1_score, roc_auc_score

from mmpretrain.evaluation.bootstrap import Measured
from mmpretrain.evaluation.embeddings import classes_of
from mmpretrain.evaluation.evaluator import Evaluator, Evidence


class Classification(Evaluator):
    """:func:`classification_scores` of the model's own logits."""

    def scores(self, evidence: Evidence) -> Mapping[str, float | Measured]:
        """See :func:`classification_scores`. Raises ValueError without logits or labels, or for labels of classes that
        the classifier has not."""
        test = evidence.test
        if test.logits is None or test.labels is None:
            lacking = "labels in the split" if test.labels is None else "logits, which this model does not give"
            raise ValueError(f"classification needs {lacking}; leave it out of the evaluation's metrics")
        labels, known = classes_of(test, "held-out", "classification"), test.logits.shape[1]
        if labels.max() >= known:
            raise ValueError(
                f"classification: a label is {labels.max()}, and the model's classifier tells {known} classes apart,"
                f" 0 to {known - 1}: it was trained on other labels"
            )
        return measure_classification(test.logits, labels)


def majority_share(labels: np.ndarray) -> float:
    """Accuracy of the best constant answer: the share of the most frequent of ``labels`` (int [n])."""
    return float(np.unique(labels, return_counts=True)[1].max() / len(labels))


def classification_scores(logits: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Scores in [0, 1] of ``logits`` [n, C] against ``labels`` int [n].

    Always ``accuracy`` (chance: share of the most frequent label). Two classes: ``f1`` of class 1 and ``roc_auc`` of
    its softmax probability (chance: one half; left out if ``labels`` hold one class only). More: ``f1_macro`` over
    the classes that occur in labels or answers, and ``f1_weighted`` by their frequency. Chances are ``NAME/chance``.
    """
    measured = measure_classification(logits, labels)
    return {name: score.value if isinstance(score, Measured) else score for name, score in measured.items()}


def measure_classification(logits: np.ndarray, labels: np.ndarray) -> dict[str, float | Measured]:
    """As :func:`classification_scores`, the accuracy with outcomes of single samples."""
    answers = logits.argmax(axis=1)
    scores: dict[str, float | Measured] = {
        "accuracy": Measured(float(accuracy_score(labels, answers)), (answers == labels).astype(np.float64)),
        "accuracy/chance": majority_share(labels),
    }
    if logits.shape[1] == 2:
        scores["f1"] = f1_score(labels, answers, zero_division=0.0)
        if len(np.unique(labels)) == 2:
            # The difference of the logits orders the samples as the softmax does, without its rounding to 0 and 1.
            scores |= {"roc_auc": roc_auc_score(labels, logits[:, 1] - logits[:, 0]), "roc_auc/chance": 0.5}
    else:
        for average in ("macro", "weighted"):
            scores[f"f1_{average}"] = f1_score(labels, answers, average=average, zero_division=0.0)
    return {name: score if isinstance(score, Measured) else float(score) for name, score in scores.items()}
