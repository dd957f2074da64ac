"""Retrieval between modalities by cosine similarity, beside chance.

Exact pair: query i of one modality looks for item i among all n items of the other. An item whose similarity lies
within TIE of item i's counts as tied with it (the same caption under several samples is the usual cause), and item i's
place among its ties is taken as random: recall@k is the probability of being among the first k, the rank is the
expected one. So identical items are never credited to the model: embeddings that have collapsed to one point score
exactly chance, k/n, and where every caption belongs to m samples recall@1 cannot exceed 1/m.
Same class (with labels): does the nearest item have the query's label? Ties count against the model: the nearest item
of the class must be nearer than every item of any other. Chance is the sum of squared class shares.
Cost: n^2 d operations per ordered pair; memory: a few arrays of BUDGET elements, never n x n beyond that.
Shapes: n samples, d width, r rows of a chunk.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations

import numpy as np

from mmpretrain.evaluation.embeddings import Embeddings
from mmpretrain.evaluation.evaluator import Evaluator, Evidence
from mmpretrain.evaluation.similarity import TIE, similarity_chunks, unit_rows


class Retrieval(Evaluator):
    """:func:`retrieval` at 1, 5 and 10."""

    def scores(self, evidence: Evidence) -> dict[str, float]:
        """See :func:`retrieval`."""
        return retrieval(evidence.test)


def retrieval(embeddings: Embeddings, ks: Sequence[int] = (1, 5, 10)) -> dict[str, float]:
    """Scores of every ordered pair of modalities, over the samples that have both; each has its ``NAME/chance``.

    Keys: ``QUERY->ITEM/recall@k`` and, with labels, ``QUERY->ITEM/class_recall@1``, in [0, 1];
    ``QUERY->ITEM/median_rank`` in [1, n]. Raises ValueError if the modalities' widths differ.
    """
    scores: dict[str, float] = {}
    for query, item in permutations(embeddings.embeds, 2):
        both = embeddings.only(embeddings.having((query, item)))
        if len(both):
            queries, items = unit_rows(both.embeds[query]), unit_rows(both.embeds[item])
            found = exact_scores(*pair_places(queries, items), ks)
            if both.labels is not None:
                found |= class_scores(queries, items, both.labels)
            scores |= {f"{query}->{item}/{name}": score for name, score in found.items()}
    return scores


def pair_places(queries: np.ndarray, items: np.ndarray, chunk: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """For each query i of unit ``queries`` [n, d]: (items nearer than item i, items tied with it, itself included).

    ``items``: unit [n, d]. ``chunk``: rows at a time (default: by BUDGET). Both results are int64 [n].
    Raises ValueError if the widths differ.
    """
    ahead, tied = np.empty(len(queries), np.int64), np.empty(len(queries), np.int64)
    for rows, similarity in similarity_chunks(queries, items, chunk):
        own = similarity[np.arange(len(similarity)), np.arange(rows.start, rows.stop)][:, None]
        ahead[rows] = (similarity > own + TIE).sum(axis=1)
        tied[rows] = (similarity >= own - TIE).sum(axis=1) - ahead[rows]
    return ahead, tied


def exact_scores(ahead: np.ndarray, tied: np.ndarray, ks: Sequence[int]) -> dict[str, float]:
    """recall@k and median rank from :func:`pair_places`'s counts (int [n] each), beside chance."""
    n = len(ahead)
    scores = {"median_rank": float(np.median(ahead + (tied + 1) / 2)), "median_rank/chance": (n + 1) / 2}
    for k in ks:
        scores[f"recall@{k}"] = float(np.mean(np.clip((k - ahead) / tied, 0, 1)))
        scores[f"recall@{k}/chance"] = min(k / n, 1.0)
    return scores


def class_scores(
    queries: np.ndarray, items: np.ndarray, labels: np.ndarray, chunk: int | None = None
) -> dict[str, float]:
    """Share of unit ``queries`` [n, d] whose nearest of ``items`` [n, d] has their label (int [n]), beside chance."""
    hits = 0
    for rows, similarity in similarity_chunks(queries, items, chunk):
        same = labels[rows, None] == labels[None, :]
        nearest = np.where(same, similarity, -np.inf).max(axis=1)
        stranger = np.where(same, -np.inf, similarity).max(axis=1)
        hits += int((nearest > stranger + TIE).sum())
    shares = np.unique(labels, return_counts=True)[1] / len(labels)
    return {"class_recall@1": hits / len(labels), "class_recall@1/chance": float((shares**2).sum())}
