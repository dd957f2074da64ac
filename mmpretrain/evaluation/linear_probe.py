"""What a linear classifier reads from frozen embeddings.

Multinomial logistic regression (L2, C = 1, L-BFGS) on L2-normalised embeddings, standardised with the train split's
mean and deviation, fitted on the train split and scored on the held-out one. Nothing is tuned on the held-out split,
and nothing is random. Shapes: n samples, d width.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from mmpretrain.evaluation.classification import majority_share
from mmpretrain.evaluation.embed import Embeddings

MAX_ITERATIONS = 1000


def linear_probe(train: Embeddings, test: Embeddings, classes: Sequence[str] | None = None) -> dict[str, float]:
    """Test accuracy for each modality and for all of them concatenated (``left+right``), beside chance.

    Keys: ``SUBJECT/accuracy`` and ``SUBJECT/accuracy/chance`` (share of the most frequent test label). With the names
    of the ``classes`` also the concatenation's recall of each class that the test split holds: ``SUBJECT/recall/NAME``.
    Raises ValueError if a split has no labels or the train split has one class only.
    """
    train_labels, test_labels = _labels(train, "train"), _labels(test, "held-out")
    if len(np.unique(train_labels)) < 2:
        raise ValueError("linear_probe: all samples of the train split have one label; leave linear_probe out")
    chance = majority_share(test_labels)
    subjects = [[modality] for modality in train.embeds]
    scores: dict[str, float] = {}
    for subject in [*subjects, list(train.embeds)] if len(subjects) > 1 else subjects:
        answers = _answers(_features(train, subject), train_labels, _features(test, subject))
        name = "+".join(subject)
        scores[f"{name}/accuracy"] = float(accuracy_score(test_labels, answers))
        scores[f"{name}/accuracy/chance"] = chance
    for label in np.unique(test_labels) if classes is not None else ():
        recall = float(np.mean(answers[test_labels == label] == label))
        scores[f"{name}/recall/{_class_name(classes, int(label))}"] = recall
    return scores


def _answers(train: np.ndarray, labels: np.ndarray, test: np.ndarray) -> np.ndarray:
    probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=MAX_ITERATIONS))
    return probe.fit(train, labels).predict(test)


def _features(embeddings: Embeddings, modalities: list[str]) -> np.ndarray:
    """float64 [n, sum of d]: each modality's rows scaled to length 1, side by side (float64: platforms agree)."""
    blocks = [embeddings.embeds[m].astype(np.float64) for m in modalities]
    return np.hstack([x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12) for x in blocks])


def _labels(embeddings: Embeddings, split: str) -> np.ndarray:
    if embeddings.labels is None:
        raise ValueError(f"linear_probe: the {split} split has no labels; leave linear_probe out of evaluation.final")
    return embeddings.labels


def _class_name(classes: Sequence[str] | None, label: int) -> str:
    return classes[label] if classes is not None and 0 <= label < len(classes) else str(label)
