"""What the nearest neighbors of a frozen embedding say: a weighted vote of the k nearest samples of the train split.

As Wu et al. 2018 (arXiv 1805.01978, section 3.4) and DINO (arXiv 2104.14294): neighbors by cosine similarity s, each
votes for its class with weight exp(s / temperature); nothing is fitted. Beyond the papers, what is equal is treated as
equal, so that neither the order of the samples nor rounding decides: train samples whose similarity lies within TIE of
the k-th largest share the places that are left among the k, and a query whose classes end level, within what TIE can
change, is right by the share of the answers that are. So embeddings that have collapsed to one point score what the
train split's most frequent class scores as a constant answer.
Cost: m n d operations for m held-out and n train samples of width d, shared by all ranks; memory: a few arrays
of similarity.BUDGET elements. Shapes: r queries of a block, C classes of the train split.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from mmpretrain.config.evaluation import KnnConfig
from mmpretrain.distributed.world import World
from mmpretrain.evaluation.bootstrap import Measured, mean_of
from mmpretrain.evaluation.classification import majority_share
from mmpretrain.evaluation.embeddings import Embeddings, classes_of
from mmpretrain.evaluation.evaluator import Evaluator, Evidence
from mmpretrain.evaluation.representations import probed_representations
from mmpretrain.evaluation.sharing import shared_rows
from mmpretrain.evaluation.similarity import TIE, unit_rows


class Knn(Evaluator):
    """:func:`measure_knn` with ``evaluation.knn``."""

    everywhere: ClassVar[bool] = True

    def scores(self, evidence: Evidence) -> Mapping[str, float | Measured]:
        """See :func:`knn`."""
        return measure_knn(evidence.train, evidence.test, evidence.settings.knn, evidence.world)


def knn(train: Embeddings, test: Embeddings, settings: KnnConfig) -> dict[str, float]:
    """Test accuracy for each representation that the linear probe reads, in the same form.

    Keys: ``SUBJECT/accuracy`` and ``SUBJECT/accuracy/chance`` (share of the most frequent test label). Samples without
    a modality are left out where it is read. Raises ValueError if a split has no labels or the train split fewer than
    k samples.
    """
    measured = measure_knn(train, test, settings, World.single())
    return {name: score.value if isinstance(score, Measured) else score for name, score in measured.items()}


def measure_knn(train: Embeddings, test: Embeddings, settings: KnnConfig, world: World) -> dict[str, float | Measured]:
    """As :func:`knn`, with outcomes of single samples; a collective, with the same answer on all ranks."""
    train_labels, test_labels = classes_of(train, "train", "knn"), classes_of(test, "held-out", "knn")
    scored = probed_representations(test)
    scores: dict[str, float | Measured] = {}
    for name, representation in probed_representations(train).items():
        known, truth = train_labels[representation.rows], test_labels[scored[name].rows]
        if len(known) < settings.k:
            raise ValueError(
                f"knn: evaluation.knn.k is {settings.k}, and the train split has {len(known)} samples with {name}:"
                f" set it to {len(known)} or less, or leave knn out"
            )
        sides = unit_rows(representation.unit_blocks()), unit_rows(scored[name].unit_blocks())
        scores[f"{name}/accuracy"] = mean_of(right_answers(*sides, known, truth, settings, world=world))
        scores[f"{name}/accuracy/chance"] = majority_share(truth)
    return scores


def right_answers(
    train: np.ndarray,
    test: np.ndarray,
    known: np.ndarray,
    truth: np.ndarray,
    settings: KnnConfig,
    chunk: int | None = None,
    world: World | None = None,
) -> np.ndarray:
    """float64 [m] in [0, 1]: whether the neighbors of each row of ``test`` name its class, level answers by share.

    train, test: unit rows [n, d] and [m, d]. known, truth: their labels, int [n] and [m]; a class that ``known`` lacks
    is never the answer. chunk: rows of ``test`` at a time (default: by BUDGET). world: the ranks that share the rows.
    """
    classes, codes = np.unique(known, return_inverse=True)

    def right(rows: slice) -> list[np.ndarray]:
        votes = _votes(test[rows] @ train.T, codes, len(classes), settings)
        # Similarities that are equal within TIE change a vote by no more than this factor.
        best = votes >= votes.max(axis=1, keepdims=True) * np.exp(-TIE / settings.temperature)
        named = best & (classes == truth[rows, None])
        return [named.any(axis=1) / best.sum(axis=1)]

    return shared_rows(world or World.single(), len(test), len(train), ["right"], right, chunk)["right"]


def _votes(similarity: np.ndarray, codes: np.ndarray, classes: int, settings: KnnConfig) -> np.ndarray:
    """float64 [r, C]: the votes of the k nearest by ``similarity`` [r, n], relative to that of the nearest."""
    queries, samples = similarity.shape
    last = np.partition(similarity, samples - settings.k, axis=1)[:, samples - settings.k]
    ahead = (similarity > last[:, None] + TIE).sum(axis=1)
    rows, columns = np.nonzero(similarity >= last[:, None] - TIE)
    near = similarity[rows, columns]
    share = (settings.k - ahead) / (np.bincount(rows, minlength=queries) - ahead)
    weights = np.exp((near - similarity.max(axis=1)[rows]) / settings.temperature)
    weights *= np.where(near > last[rows] + TIE, 1.0, share[rows])
    return np.bincount(rows * classes + codes[columns], weights, queries * classes).reshape(queries, classes)
