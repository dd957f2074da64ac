"""What linear classifiers read of labels from common codes, from individual codes, and from both.

Logistic regression (L2, C = 1, L-BFGS) on standardized codes, fitted on one split and scored on another; nothing is
tuned. Two classes: area under the ROC curve; more: balanced accuracy. Shapes: n samples.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score, roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from mmpretrain.data.factor_codes import decode_factors
from mmpretrain.explain.scores import Codes
from mmpretrain.records import Score

MAX_ITERATIONS = 1000
LABEL = "label"


def part_probes(
    train: Mapping[str, Codes],
    test: Mapping[str, Codes],
    known: Mapping[str, np.ndarray],
    truth: Mapping[str, np.ndarray],
) -> list[Score]:
    """A score for every target (name -> int [n], ``known`` of train, ``truth`` of test) and representation.

    Representations of a pair (a, b): ``common``, ``individual``, ``both`` of both modalities side by side, and
    ``common a``, ``individual a`` and so on. Those without a dimension, and targets with one class in a split, are left
    out.
    """
    fitted, scored = _representations(train), _representations(test)
    return [
        Score("probes", subject, target, *_probe(features, known[target], scored[subject], truth[target]))
        for subject, features in fitted.items()
        for target in known
        if features.shape[1] and min(len(np.unique(known[target])), len(np.unique(truth[target]))) > 1
    ]


def in_words(subject: str, pair: tuple[str, str]) -> str:
    """A representation as a reader of a table sees it; the individual codes are called a modality's own there."""
    part, _, name = subject.partition(" ")
    if part == "both":
        return "all directions of both"
    what = {"common": "common directions", "individual": "own directions"}[part]
    return f"{name}, {what}" if name in pair else f"{what} of both"


def targets_of(labels: np.ndarray | None, factors: Mapping[str, int]) -> dict[str, np.ndarray]:
    """Target -> int [n]: the factors that labels are codes of, or the label itself; empty without labels."""
    if labels is None:
        return {}
    return decode_factors(labels, factors) if factors else {LABEL: labels}


def _representations(codes: Mapping[str, Codes]) -> dict[str, np.ndarray]:
    common = {f"common {name}": code.common.numpy() for name, code in codes.items()}
    individual = {f"individual {name}": code.individual.numpy() for name, code in codes.items()}
    whole = {"common": np.hstack([*common.values()]), "individual": np.hstack([*individual.values()])}
    return {**whole, "both": np.hstack([*whole.values()]), **common, **individual}


def _probe(train: np.ndarray, known: np.ndarray, test: np.ndarray, truth: np.ndarray) -> tuple[float, float]:
    """Score and chance."""
    probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=MAX_ITERATIONS)).fit(train, known)
    if len(probe.classes_) == 2:
        return float(roc_auc_score(truth, probe.decision_function(test))), 0.5
    return float(balanced_accuracy_score(truth, probe.predict(test))), 1 / len(np.unique(truth))
