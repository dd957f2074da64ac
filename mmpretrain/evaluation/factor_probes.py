"""What a linear classifier reads of every factor that a dataset was made from.

For each factor a multinomial logistic regression (L2, C = 1, L-BFGS), fitted on one split and scored on the held-out
one, on features centered and divided by one overall standard deviation: a scale per feature would blow up
whatever small non-linear mixture of few factors an embedding holds. Balanced accuracy, as some factors are rare. A rare
binary factor can be read and yet never be the likelier answer, so binary factors have two more scores, from a
regression that weights both classes alike: its balanced accuracy and its area under the ROC curve.

``search`` adds the probe of CoMM's released notebooks (github.com/Duplums/CoMM), which made figures that its paper
prints: ``LogisticRegressionCV(Cs=5, scoring="balanced_accuracy")`` of scikit-learn, all else at its defaults, on the
features as they are. Its strength is one of 1e-4, 1e-2, 1, 1e2 and 1e4, by five stratified parts of the probe split,
and it takes 100 iterations at most, which is too few for strong ones: that limit is part of the published probe.

``one_hot``, for binary factors beside others: the same regression on the other factors' true values, one-hot, without
interactions. What follows from single factors is in its score; only what exceeds it needs a code of their combination.
With few combinations of factors it can lie far from one half. Shapes: n samples, d width.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression, LogisticRegressionCV
from sklearn.metrics import balanced_accuracy_score, roc_auc_score

from mmpretrain.config.evaluation import FactorsConfig, Search
from mmpretrain.data.factor_codes import decode_factors
from mmpretrain.evaluation.embeddings import Embeddings, classes_of
from mmpretrain.evaluation.evaluator import Evaluator, Evidence
from mmpretrain.evaluation.representations import whole_representations

MAX_ITERATIONS = 1000
ONE_HOT = "one_hot"
STRENGTHS = 5  # between 1e-4 and 1e4
PARTS = 5  # of the cross-validation


class FactorProbes(Evaluator):
    """:func:`factor_probes` of all factors of the dataset."""

    def scores(self, evidence: Evidence) -> dict[str, float]:
        """See :func:`factor_probes`."""
        return factor_probes(evidence.train, evidence.test, evidence.factors, evidence.settings.factors)


def factor_probes(
    train: Embeddings, test: Embeddings, factors: Mapping[str, int], settings: FactorsConfig | None = None
) -> dict[str, float]:
    """Scores of each factor (name -> classes) from each representation of all modalities (representations.py).

    Labels are codes of the factors (data/factor_codes.py). Keys: ``SUBJECT/FACTOR/balanced_accuracy``, and
    ``weighted_balanced_accuracy`` and ``roc_auc`` of binary factors, each with its ``/chance``; with ``search`` also
    ``searched_balanced_accuracy``, and ``strength``, which cross-validation chose for it.
    Raises ValueError without factors or labels, for a factor of which a split holds one class only, and for one of
    which the probe split has too few samples to search.
    """
    if not factors or train.labels is None or test.labels is None:
        lacking = "labels in both splits" if factors else "factors, which the dataset's dataset.json does not name"
        raise ValueError(f"factors needs {lacking}; leave it out of the evaluation's metrics")
    search = (settings or FactorsConfig()).search is not Search.never
    codes = classes_of(train, "train", "factors"), classes_of(test, "held-out", "factors")
    known, truth = (decode_factors(labels, factors) for labels in codes)
    scored = whole_representations(test)
    scores: dict[str, float] = {}
    for subject, representation in whole_representations(train).items():
        sides = _Sides(representation.joined(), scored[subject].joined())
        for factor in factors:
            targets = known[factor][representation.rows], truth[factor][scored[subject].rows]
            found = _probe(factor, sides, *targets, binary=factors[factor] == 2, search=search)
            scores |= {f"{subject}/{factor}/{name}": value for name, value in found.items()}
    return scores | _additive(known, truth, factors, search=search)


@dataclass(frozen=True)
class _Sides:
    """Features of what a probe learns from and of what it is asked about, float64 [n, d]."""

    train: np.ndarray
    test: np.ndarray

    @cached_property
    def scaled(self) -> tuple[np.ndarray, np.ndarray]:
        """Both centered and divided by one number, by what the first one holds."""
        mean = self.train.mean(axis=0)
        deviation = max(float((self.train - mean).std()), 1e-12)
        return (self.train - mean) / deviation, (self.test - mean) / deviation


def _additive(
    known: Mapping[str, np.ndarray], truth: Mapping[str, np.ndarray], factors: Mapping[str, int], *, search: bool
) -> dict[str, float]:
    """Scores of binary factors from all others' true values."""
    others = [name for name, classes in factors.items() if classes > 2]
    if not others:
        return {}
    sides = _Sides(*(np.hstack([np.eye(factors[name])[v[name]] for name in others]) for v in (known, truth)))
    scores: dict[str, float] = {}
    for factor in (name for name, classes in factors.items() if classes == 2):
        found = _probe(factor, sides, known[factor], truth[factor], binary=True, search=search)
        scores |= {f"{ONE_HOT}/{factor}/{name}": value for name, value in found.items()}
    return scores


def _probe(
    factor: str, sides: _Sides, known: np.ndarray, truth: np.ndarray, *, binary: bool, search: bool
) -> dict[str, float]:
    """Scores of one factor; known, truth: its values in both splits, int [n]."""
    for split, values in (("probe", known), ("held-out", truth)):
        if len(np.unique(values)) < 2:
            raise ValueError(f"factors: all samples of the {split} split have one value of {factor}: use more samples")
    train, test = sides.scaled
    plain = _fit(train, known, None)
    scores = {"balanced_accuracy": balanced_accuracy_score(truth, plain.predict(test))}
    if search:
        chosen, strength = searched_probe(factor, sides.train, known)
        scores["searched_balanced_accuracy"] = balanced_accuracy_score(truth, chosen.predict(sides.test))
    chance = 1 / len(np.unique(truth))
    if binary:
        weighted = _fit(train, known, "balanced")
        scores["weighted_balanced_accuracy"] = balanced_accuracy_score(truth, weighted.predict(test))
        scores["roc_auc"] = roc_auc_score(truth, weighted.decision_function(test))
    found = {key: float(v) for name, value in scores.items() for key, v in ((name, value), (f"{name}/chance", chance))}
    return found | ({"strength": strength} if search else {})


def _fit(features: np.ndarray, values: np.ndarray, weights: Literal["balanced"] | None) -> LogisticRegression:
    return LogisticRegression(C=1.0, max_iter=MAX_ITERATIONS, class_weight=weights).fit(features, values)


def searched_probe(factor: str, features: np.ndarray, values: np.ndarray) -> tuple[LogisticRegressionCV, float]:
    """The notebook's probe of ``factor``, and the strength that it chose; features: float64 [n, d] as they are, values:
    int [n]. Raises ValueError if a value is too rare."""
    rarest = int(np.unique(values, return_counts=True)[1].min())
    if rarest < PARTS:
        raise ValueError(
            f"factors: evaluation.factors.search needs {PARTS} samples of every value of {factor} in the probe split,"
            f" which has {rarest} of one: use more samples, or leave it out"
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # see the module's docstring
        warnings.simplefilter("ignore", FutureWarning)  # newer ones rename arguments that are left at their defaults
        probe = LogisticRegressionCV(Cs=STRENGTHS, cv=PARTS, scoring="balanced_accuracy").fit(features, values)
    return probe, float(np.ravel(probe.C_)[0])
