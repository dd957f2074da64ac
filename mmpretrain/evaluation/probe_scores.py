"""Scores of a probe's answers, by the form of the labels, with the outcomes of single samples.

Where a score is no mean over samples, its outcomes are those of which it is the mean to first order (its value plus
each sample's influence on it), so that it gets its interval like all others (bootstrap.py). For the area under the ROC
curve those are DeLong's placements. Shapes: n samples, K classes that the probe knows, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from sklearn.metrics import average_precision_score, f1_score

from mmpretrain.evaluation.bootstrap import Measured, mean_of
from mmpretrain.evaluation.classification import majority_share

Scores = dict[str, float | Measured]


def class_answers(answers: np.ndarray, probability: np.ndarray, known: np.ndarray, labels: np.ndarray) -> Scores:
    """Scores in [0, 1] of one class per sample.

    answers, labels: int [n]. probability: [n, K], of the classes ``known`` (int [K]). ``accuracy`` (chance: share of
    the most frequent label), ``balanced_accuracy`` (mean recall of the classes that occur in ``labels``; chance: one by
    their number), ``roc_auc`` (of two classes; of more the mean over each against all others; of the known classes that
    some samples have and others have not, left out if there is none; chance: one half).
    """
    right = answers == labels
    scores: Scores = {"accuracy": mean_of(right), "accuracy/chance": majority_share(labels)}
    scores |= balanced(right, labels)
    wanted = known[1:] if len(known) == 2 else known
    areas = [area(probability[:, known == label][:, 0], labels == label) for label in wanted]
    return scores | _mean_area([found for found in areas if found is not None])


def recalls(answers: np.ndarray, labels: np.ndarray, classes: Sequence[str]) -> dict[str, float]:
    """``recall/NAME`` of each class that occurs in ``labels`` (int [n], as ``answers``)."""
    found = {}
    for label in np.unique(labels).tolist():
        name = classes[label] if 0 <= label < len(classes) else str(label)
        found[f"recall/{name}"] = float(np.mean(answers[labels == label] == label))
    return found


def balanced(right: np.ndarray, labels: np.ndarray) -> Scores:
    """``balanced_accuracy`` of answers that are ``right`` (in [0, 1], [n]), beside chance."""
    codes, counts = np.unique(labels, return_inverse=True, return_counts=True)[1:]
    recall = np.bincount(codes, right) / counts
    value = float(recall.mean())
    influence = len(labels) / (len(counts) * counts[codes]) * (right - recall[codes])
    return {
        "balanced_accuracy": Measured(value, value + influence),
        "balanced_accuracy/chance": 1 / len(counts),
    }


def several_answers(probability: np.ndarray, labels: np.ndarray) -> Scores:
    """Scores in [0, 1] of several classes per sample, over the classes that occur in ``labels`` (0 and 1, [n, C]).

    probability: [n, C]. ``average_precision`` and ``f1_macro``: means over the classes (chance of the former: their
    mean share of samples), ``f1_weighted``: the mean by how many samples have each; ``f1_micro``: of all answers
    together, a class being answered from one half on; ``roc_auc`` over the classes that some samples lack, as in
    :func:`class_answers`. Raises ValueError if no class occurs.
    """
    there = np.flatnonzero(labels.any(axis=0))
    if not len(there):
        raise ValueError("linear_probe: no sample of the held-out split has any class; leave linear_probe out")
    truth, found = labels[:, there], probability[:, there]
    answers = (found >= 0.5).astype(np.int64)
    areas = [area(found[:, place], truth[:, place] == 1) for place in range(len(there))]
    return {
        "average_precision": float(average_precision_score(truth, found, average="macro")),
        "average_precision/chance": float(truth.mean()),
        "f1_macro": float(f1_score(truth, answers, average="macro", zero_division=0.0)),
        "f1_micro": _f1(answers, truth),
        "f1_weighted": float(f1_score(truth, answers, average="weighted", zero_division=0.0)),
        **_mean_area([one for one in areas if one is not None]),
    }


def value_answers(answers: np.ndarray, labels: np.ndarray, known: np.ndarray) -> Scores:
    """Scores of measured values ([n] or [n, T]), beside those of always answering the mean of ``known``, the train
    split's.

    ``r2``: share of the variance that is explained, over all targets together (chance: that constant's); ``mae``: mean
    absolute error, in the unit of the labels; ``mse``: the mean squared one, over all targets. Raises ValueError for
    labels that are not finite or are all alike.
    """
    truth, found = labels.reshape(len(labels), -1), answers.reshape(len(labels), -1)
    if not np.isfinite(truth).all():
        raise ValueError("linear_probe: labels of the held-out split are not finite: mend them")
    spread = ((truth - truth.mean(axis=0)) ** 2).sum(axis=1)
    if not spread.sum():
        raise ValueError("linear_probe: all samples of the held-out split have one value; leave linear_probe out")
    constant = np.broadcast_to(known.reshape(len(known), -1).mean(axis=0), truth.shape)
    missed, chance = (((truth - guess) ** 2).sum(axis=1) for guess in (found, constant))
    value = 1 - missed.sum() / spread.sum()
    influence = -(missed - (1 - value) * spread) * len(truth) / spread.sum()
    return {
        "r2": Measured(float(value), value + influence),
        "r2/chance": float(1 - chance.sum() / spread.sum()),
        "mae": mean_of(np.abs(truth - found).mean(axis=1)),
        "mae/chance": float(np.abs(truth - constant).mean()),
        "mse": mean_of(((truth - found) ** 2).mean(axis=1)),
        "mse/chance": float(((truth - constant) ** 2).mean()),
    }


def area(scores: np.ndarray, positive: np.ndarray) -> Measured | None:
    """Area under the ROC curve of ``scores`` [n] for ``positive`` (bool [n]); None unless there are both."""
    ones, zeros = int(positive.sum()), int((~positive).sum())
    if not ones or not zeros:
        return None
    ranks, placements = _ranks(scores), np.empty(len(scores))
    placements[positive] = (ranks[positive] - _ranks(scores[positive])) / zeros
    placements[~positive] = 1 - (ranks[~positive] - _ranks(scores[~positive])) / ones
    value = float(placements[positive].mean())
    sizes = np.where(positive, ones, zeros)
    return Measured(value, value + len(scores) / sizes * (placements - value))


def _ranks(scores: np.ndarray) -> np.ndarray:
    """[n]: the place of each in increasing order, from 1; equal ones share theirs."""
    _, place, counts = np.unique(scores, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[place]


def _mean_area(areas: Sequence[Measured]) -> Scores:
    if not areas:
        return {}
    outcomes = np.mean([one.outcomes for one in areas], axis=0)
    return {"roc_auc": Measured(float(np.mean([one.value for one in areas])), outcomes), "roc_auc/chance": 0.5}


def _f1(answers: np.ndarray, truth: np.ndarray) -> Measured:
    """F1 of all answers together: 2 TP / (2 TP + FP + FN)."""
    hits, size = 2 * (answers & truth).sum(axis=1), (answers + truth).sum(axis=1)
    if not size.sum():
        return Measured(0.0, np.zeros(len(truth)))
    value = float(hits.sum() / size.sum())
    return Measured(value, value + (hits - value * size) * len(truth) / size.sum())
