"""What a linear model reads from frozen embeddings.

On L2-normalized embeddings, standardized with the train split's mean and deviation, fitted on one split and scored on
the held-out one: of one class per sample a multinomial logistic regression (L2, C = strength, L-BFGS), of several a
logistic regression for each class, of measured values a ridge regression (alpha = 1 / strength). Nothing is tuned on
the held-out split; the strength is 1 or, if ``candidates`` are given, the best of them by cross-validation within the
train split, in parts that are drawn by a fixed seed. Rank 0 does all of it. Shapes: n samples, d width, C classes.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import BaseCrossValidator, GridSearchCV, KFold, StratifiedKFold
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from mmpretrain.config.evaluation import LinearProbeConfig
from mmpretrain.evaluation.bootstrap import Measured
from mmpretrain.evaluation.embeddings import Embeddings, has_classes, labels_of
from mmpretrain.evaluation.evaluator import Evaluator, Evidence
from mmpretrain.evaluation.probe_scores import class_answers, recalls, several_answers, value_answers
from mmpretrain.evaluation.representations import probed_representations

MAX_ITERATIONS = 1000
SEED = 0  # of the parts of a cross-validation


class LinearProbe(Evaluator):
    """:func:`measure_probe` of everything that a probe may read."""

    def scores(self, evidence: Evidence) -> Mapping[str, float | Measured]:
        """See :func:`linear_probe`."""
        return measure_probe(evidence.train, evidence.test, evidence.classes, evidence.settings.linear_probe)


def linear_probe(
    train: Embeddings,
    test: Embeddings,
    classes: Sequence[str] | None = None,
    settings: LinearProbeConfig | None = None,
) -> dict[str, float]:
    """Test scores for each modality, for all of them concatenated (``left+right``), and for what else there is.

    Keys: ``SUBJECT/SCORE``, most with ``SUBJECT/SCORE/chance``; subjects are all of representations.py,
    ``shared+unique`` among them, and scores those of probe_scores.py for the form of the labels. With the names of the
    ``classes`` also the concatenation's recall of each class that the test split holds: ``SUBJECT/recall/NAME``.
    ``SUBJECT/strength``: what cross-validation chose. Samples without a modality are left out where it is read.
    Raises ValueError if a split has no labels or the train split has one class only.
    """
    measured = measure_probe(train, test, classes, settings)
    return {name: score.value if isinstance(score, Measured) else score for name, score in measured.items()}


def measure_probe(
    train: Embeddings,
    test: Embeddings,
    classes: Sequence[str] | None = None,
    settings: LinearProbeConfig | None = None,
) -> dict[str, float | Measured]:
    """As :func:`linear_probe`, with outcomes of single samples."""
    settings = settings or LinearProbeConfig()
    train_labels, test_labels = labels_of(train, "train", "linear_probe"), labels_of(test, "held-out", "linear_probe")
    modalities = "+".join(train.embeds)
    scored = probed_representations(test)
    scores: dict[str, float | Measured] = {}
    for name, representation in probed_representations(train).items():
        sides = representation.unit_blocks(), scored[name].unit_blocks()
        known, labels = train_labels[representation.rows], test_labels[scored[name].rows]
        named = classes if name == modalities else None
        found = read(*sides, known, labels, settings, named)
        scores |= {f"{name}/{score}": value for score, value in found.items()}
    return scores


def read(
    train: np.ndarray,
    test: np.ndarray,
    known: np.ndarray,
    labels: np.ndarray,
    settings: LinearProbeConfig,
    classes: Sequence[str] | None = None,
) -> dict[str, float | Measured]:
    """Scores of one representation, [n, d] of both splits, by the form of the labels. Raises ValueError."""
    check_known(known)
    probe, strength = fitted(train, known, settings)
    if has_classes(known):
        found = class_answers(probe.predict(test), probe.predict_proba(test), probe.classes_, labels)
        found |= recalls(probe.predict(test), labels, classes) if classes is not None else {}
    elif np.issubdtype(known.dtype, np.integer):
        found = several_answers(probe.predict_proba(test), labels)
    else:
        found = value_answers(probe.predict(test), labels, known)
    if settings.candidates:
        found["strength"] = strength
    return found


def check_known(known: np.ndarray) -> None:
    """Raises ValueError if the labels of the train split are such that nothing can be learned from them."""
    if not len(known):
        raise ValueError("linear_probe: no sample of the train split has what is read; leave linear_probe out")
    if not np.isfinite(known).all():
        raise ValueError("linear_probe: labels of the train split are not finite: mend them")
    if (known == known[0]).all():
        raise ValueError("linear_probe: all samples of the train split have one label; leave linear_probe out")


def fitted(train: np.ndarray, known: np.ndarray, settings: LinearProbeConfig) -> tuple[Pipeline, float]:
    """The probe of ``train`` [n, d], by the form of ``known``, and the strength that it was fitted with.

    Raises ValueError if the split is too small for the cross-validation.
    """
    strengths = sorted(set(settings.candidates)) or [settings.strength]
    model, key, parts = _model(known, settings.folds)
    pipeline = make_pipeline(StandardScaler(), model)
    values = [1 / strength if key.endswith("alpha") else strength for strength in strengths]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Label .* is present in all training examples")
        if not settings.candidates:
            return pipeline.set_params(**{key: values[0]}).fit(train, known), strengths[0]
        if len(known) < settings.folds:
            raise ValueError(
                f"linear_probe: evaluation.linear_probe.folds is {settings.folds}, and the train split has {len(known)}"
                " samples: lower it, or leave evaluation.linear_probe.candidates empty"
            )
        # The first of equally good ones, which is the weakest.
        scoring = settings.chosen_by.value if has_classes(known) else None
        search = GridSearchCV(pipeline, {key: values}, cv=parts, scoring=scoring, error_score="raise").fit(train, known)
    return search.best_estimator_, strengths[search.best_index_]


def _model(known: np.ndarray, folds: int) -> tuple[BaseEstimator, str, BaseCrossValidator]:
    """What is fitted to labels of this form, the name of its strength, and how cross-validation cuts the split."""
    if has_classes(known):
        # Parts hold every class alike, as far as it has samples enough.
        rarest = int(np.unique(known, return_counts=True)[1].min())
        cut = StratifiedKFold if rarest >= folds else KFold
        parts = cut(folds, shuffle=True, random_state=SEED)
        return LogisticRegression(max_iter=MAX_ITERATIONS), "logisticregression__C", parts
    parts = KFold(folds, shuffle=True, random_state=SEED)
    if np.issubdtype(known.dtype, np.integer):
        model = OneVsRestClassifier(LogisticRegression(max_iter=MAX_ITERATIONS))
        return model, "onevsrestclassifier__estimator__C", parts
    return Ridge(), "ridge__alpha", parts
