"""What a linear classifier reads of every factor that a dataset was made from.

For each factor a multinomial logistic regression (L2, C = 1, L-BFGS), fitted on one split and scored on the held-out
one, on features centered and divided by one overall standard deviation: a scale per feature would blow up
whatever small non-linear mixture of few factors an embedding holds. Balanced accuracy, as some factors are rare. A rare
binary factor can be read and yet never be the likelier answer, so binary factors have two more scores, from a
regression that weights both classes alike: its balanced accuracy and its area under the ROC curve.

``one_hot``, for binary factors beside others: the same regression on the other factors' true values, one-hot, without
interactions. What follows from single factors is in its score; only what exceeds it needs a code of their combination.
With few combinations of factors it can lie far from one half. Shapes: n samples, d width.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score, roc_auc_score

from mmpretrain.data.factor_codes import decode_factors
from mmpretrain.evaluation.embeddings import Embeddings, classes_of
from mmpretrain.evaluation.evaluator import Evaluator, Evidence
from mmpretrain.evaluation.representations import whole_representations

MAX_ITERATIONS = 1000
ONE_HOT = "one_hot"


class FactorProbes(Evaluator):
    """:func:`factor_probes` of all factors of the dataset."""

    def scores(self, evidence: Evidence) -> dict[str, float]:
        """See :func:`factor_probes`."""
        return factor_probes(evidence.train, evidence.test, evidence.factors)


def factor_probes(train: Embeddings, test: Embeddings, factors: Mapping[str, int]) -> dict[str, float]:
    """Scores of each factor (name -> classes) from each representation of all modalities (representations.py).

    Labels are codes of the factors (data/factor_codes.py). Keys: ``SUBJECT/FACTOR/balanced_accuracy``, and
    ``weighted_balanced_accuracy`` and ``roc_auc`` of binary factors, each with its ``/chance``.
    Raises ValueError without factors or labels, and for a factor of which a split holds one class only.
    """
    if not factors or train.labels is None or test.labels is None:
        lacking = "labels in both splits" if factors else "factors, which the dataset's dataset.json does not name"
        raise ValueError(f"factors needs {lacking}; leave it out of the evaluation's metrics")
    codes = classes_of(train, "train", "factors"), classes_of(test, "held-out", "factors")
    known, truth = (decode_factors(labels, factors) for labels in codes)
    scored = whole_representations(test)
    scores: dict[str, float] = {}
    for subject, representation in whole_representations(train).items():
        features = _scaled(representation.joined(), scored[subject].joined())
        for factor in factors:
            targets = known[factor][representation.rows], truth[factor][scored[subject].rows]
            found = _probe(factor, *features, *targets, binary=factors[factor] == 2)
            scores |= {f"{subject}/{factor}/{name}": value for name, value in found.items()}
    return scores | _additive(known, truth, factors)


def _additive(
    known: Mapping[str, np.ndarray], truth: Mapping[str, np.ndarray], factors: Mapping[str, int]
) -> dict[str, float]:
    """Scores of binary factors from all others' true values."""
    others = [name for name, classes in factors.items() if classes > 2]
    if not others:
        return {}
    train, test = (np.hstack([np.eye(factors[name])[v[name]] for name in others]) for v in (known, truth))
    features = _scaled(train, test)
    scores: dict[str, float] = {}
    for factor in (name for name, classes in factors.items() if classes == 2):
        found = _probe(factor, *features, known[factor], truth[factor], binary=True)
        scores |= {f"{ONE_HOT}/{factor}/{name}": value for name, value in found.items()}
    return scores


def _scaled(train: np.ndarray, test: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    mean = train.mean(axis=0)
    deviation = max(float((train - mean).std()), 1e-12)
    return (train - mean) / deviation, (test - mean) / deviation


def _probe(
    factor: str, train: np.ndarray, test: np.ndarray, known: np.ndarray, truth: np.ndarray, *, binary: bool
) -> dict[str, float]:
    """Scores of one factor; train, test: scaled features [n, d], known, truth: its values int [n]."""
    for split, values in (("probe", known), ("held-out", truth)):
        if len(np.unique(values)) < 2:
            raise ValueError(f"factors: all samples of the {split} split have one value of {factor}: use more samples")
    plain = _fit(train, known, None)
    scores = {"balanced_accuracy": balanced_accuracy_score(truth, plain.predict(test))}
    chance = 1 / len(np.unique(truth))
    if binary:
        weighted = _fit(train, known, "balanced")
        scores["weighted_balanced_accuracy"] = balanced_accuracy_score(truth, weighted.predict(test))
        scores["roc_auc"] = roc_auc_score(truth, weighted.decision_function(test))
    return {key: float(v) for name, value in scores.items() for key, v in ((name, value), (f"{name}/chance", chance))}


def _fit(features: np.ndarray, values: np.ndarray, weights: Literal["balanced"] | None) -> LogisticRegression:
    return LogisticRegression(C=1.0, max_iter=MAX_ITERATIONS, class_weight=weights).fit(features, values)
