"""Retrieval between modalities by cosine similarity, beside chance.

Exact pair: a query's right items are those that lie in a sample with it: one, as a rule; with several captions per
picture each of them for the picture, and the picture for each (as on COCO). The first right item counts. Items whose
similarity lies within TIE of its own count as tied with it (the same caption under several samples is the usual cause),
and their order is taken as random: recall@k is the probability that a right item is among the first k, the rank is
the expected one. So identical items are never credited to the model: embeddings that have collapsed to one point score
exactly chance, and where every caption belongs to m samples recall@1 cannot exceed 1/m, unless
these m hold one item by ``evaluation.retrieval.same``.
Same class (with labels): does the nearest item have the query's label? Ties count against the model: the nearest item
of the class must be nearer than every item of any other. Chance is the sum over the classes of the share of queries
times the share of items.
Cost: m n d operations per ordered pair, shared by all ranks; memory: a few arrays of BUDGET elements, never m x n
beyond that. Where every rank has a share of the samples, none sees all of them at once (share_places.py).
Shapes: m queries, n items, d width, r rows of a chunk.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import permutations
from typing import ClassVar

import numpy as np

from mmpretrain.distributed.world import World
from mmpretrain.evaluation.bootstrap import Measured, mean_of
from mmpretrain.evaluation.device_places import DevicePlaces
from mmpretrain.evaluation.embeddings import Embeddings, has_classes
from mmpretrain.evaluation.evaluator import Evaluator, Evidence
from mmpretrain.evaluation.items import Items, Relation, items_of, related
from mmpretrain.evaluation.share_places import places_by_shares
from mmpretrain.evaluation.shares import Share
from mmpretrain.evaluation.sharing import shared_rows
from mmpretrain.evaluation.similarity import TIE, check_widths, row_blocks, unit_rows

AHEAD, TIED, RIGHT, CLASS = "ahead", "tied", "right", "class"


class Retrieval(Evaluator):
    """:func:`measure_retrieval` at 1, 5 and 10."""

    everywhere: ClassVar[bool] = True
    by_shares: ClassVar[bool] = True

    def scores(self, evidence: Evidence) -> Mapping[str, float | Measured]:
        """See :func:`retrieval`."""
        return measure_retrieval(evidence.test, evidence.world)


def retrieval(embeddings: Embeddings, ks: Sequence[int] = (1, 5, 10)) -> dict[str, float]:
    """Scores of every ordered pair of modalities, over the samples that have both; each has its ``NAME/chance``.

    Keys: ``QUERY->ITEM/recall@k`` and, with one class each, ``QUERY->ITEM/class_recall@1``, in [0, 1];
    ``QUERY->ITEM/median_rank`` in [1, n]. Raises ValueError if the modalities' widths differ.
    """
    measured = measure_retrieval(embeddings, World.single(), ks)
    return {name: score.value if isinstance(score, Measured) else score for name, score in measured.items()}


def measure_retrieval(
    embeddings: Embeddings,
    world: World,
    ks: Sequence[int] = (1, 5, 10),
    directions: Sequence[tuple[str, str]] | None = None,
) -> dict[str, float | Measured]:
    """As :func:`retrieval`, with outcomes of single queries; a collective, with the same answer on all ranks.

    directions: (query, item) modalities; None: all.
    """
    scores: dict[str, float | Measured] = {}
    share = embeddings.share
    names = embeddings.embeds if share is None else share.embeds
    for query, item in directions if directions is not None else permutations(names, 2):
        if share is not None:
            found = _shared_direction(embeddings, share, query, item, world, ks)
            scores |= {f"{query}->{item}/{name}": score for name, score in found.items()}
            continue
        both = embeddings.only(embeddings.having((query, item)))
        if len(both):
            found = _direction(items_of(both, query), items_of(both, item), both.labels, world, ks)
            scores |= {f"{query}->{item}/{name}": score for name, score in found.items()}
    return scores


def _direction(
    queries: Items, items: Items, labels: np.ndarray | None, world: World, ks: Sequence[int]
) -> dict[str, float | Measured]:
    right, rows = related(queries, items), (unit_rows(queries.rows), unit_rows(items.rows))
    classes = None
    if labels is not None and has_classes(labels):
        classes = labels[queries.samples], labels[items.samples]
    places = _places(*rows, right, classes, world)
    scores = place_scores(places[AHEAD], places[TIED], places[RIGHT], right, ks)
    if classes is not None:
        scores |= {"class_recall@1": mean_of(places[CLASS], right.groups()), "class_recall@1/chance": _meet(*classes)}
    return scores


def _shared_direction(
    embeddings: Embeddings, share: Share, query: str, item: str, world: World, ks: Sequence[int]
) -> dict[str, float | Measured]:
    """As :func:`_direction`, where every rank has a share of the samples; {} if none has both modalities."""
    both = embeddings.having((query, item))
    if not both.any():
        return {}
    mine = both[share.rows]
    places = (np.cumsum(both) - 1)[share.rows[mine]]
    sides = [unit_rows(share.embeds[name][mine]) for name in (query, item)]
    check_widths(sides[0], sides[1])
    classes = None
    if embeddings.labels is not None and has_classes(embeddings.labels):
        classes = embeddings.labels[both]
    own_classes = None if classes is None else classes[places]
    ahead, tied, *same = places_by_shares(sides[0], sides[1], places, int(both.sum()), own_classes, world)
    scores = place_scores(ahead, tied, np.ones(len(ahead)), Relation.one_to_one(len(ahead)), ks)
    if classes is not None:
        scores |= {"class_recall@1": mean_of(same[0]), "class_recall@1/chance": _meet(classes, classes)}
    return scores


def _places(
    queries: np.ndarray,
    items: np.ndarray,
    right: Relation,
    classes: tuple[np.ndarray, np.ndarray] | None,
    world: World,
    chunk: int | None = None,
) -> dict[str, np.ndarray]:
    """float64 [m] each: items nearer than the first right one, items tied with it, right ones among those, and whether
    the nearest item is of the query's class."""
    check_widths(queries, items)

    def outcomes(rows: slice) -> list[np.ndarray]:
        similarity = queries[rows] @ items.T
        own, tied_right = right.nearest(rows, similarity)
        ahead = (similarity > own[:, None] + TIE).sum(axis=1)
        found = [ahead, (similarity >= own[:, None] - TIE).sum(axis=1) - ahead, tied_right]
        return found if classes is None else [*found, _same_class(similarity, classes[0][rows], classes[1])]

    names = [AHEAD, TIED, RIGHT, *([CLASS] if classes is not None else [])]
    if world.device.type == "cuda":
        outcomes = DevicePlaces(queries, items, right, classes, world.device).outcomes
    return shared_rows(world, len(queries), len(items), names, outcomes, chunk)


def place_scores(
    ahead: np.ndarray, tied: np.ndarray, tied_right: np.ndarray, right: Relation, ks: Sequence[int]
) -> dict[str, float | Measured]:
    """recall@k and median rank from counts ([m] each, as of a query's first right item), beside chance."""
    groups, counts, items = right.groups(), right.counts, right.items
    ranks = ahead + (tied + 1) / (tied_right + 1)
    scores: dict[str, float | Measured] = {
        "median_rank": Measured(float(np.median(ranks)), ranks, groups, median=True),
        "median_rank/chance": float(np.median((items + 1) / (counts + 1))),
    }
    for k in ks:
        scores[f"recall@{k}"] = mean_of(among_first(k - ahead, tied, tied_right), groups)
        alone = bool((counts == 1).all())
        chance = min(k / items, 1.0) if alone else float(among_first(k, np.full(len(counts), items), counts).mean())
        scores[f"recall@{k}/chance"] = chance
    return scores


def among_first(places: np.ndarray | int, tied: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Probability that one of ``right`` items is among ``places``, of ``tied`` items in random order ([m] each)."""
    single = np.clip(places / tied, 0, 1)
    missed = np.ones(len(tied))
    for place in range(int(np.max(places, initial=0))):
        taken = np.clip((tied - right - place) / np.maximum(tied - place, 1), 0, 1)
        missed *= np.where(np.asarray(places) > place, taken, 1.0)
    return np.where(right == 1, single, 1 - missed)


def pair_places(queries: np.ndarray, items: np.ndarray, chunk: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """For each query i of unit ``queries`` [n, d]: (items nearer than item i, items tied with it, itself included).

    ``items``: unit [n, d]. ``chunk``: rows at a time (default: by BUDGET). Both results are int64 [n].
    Raises ValueError if the widths differ.
    """
    places = _places(queries, items, Relation.one_to_one(len(queries)), None, World.single(), chunk)
    return places[AHEAD].astype(np.int64), places[TIED].astype(np.int64)


def exact_scores(ahead: np.ndarray, tied: np.ndarray, ks: Sequence[int]) -> dict[str, float]:
    """recall@k and median rank from :func:`pair_places`'s counts (int [n] each), beside chance."""
    scores = place_scores(ahead, tied, np.ones(len(ahead)), Relation.one_to_one(len(ahead)), ks)
    return {name: score.value if isinstance(score, Measured) else score for name, score in scores.items()}


def class_scores(
    queries: np.ndarray, items: np.ndarray, labels: np.ndarray, chunk: int | None = None
) -> dict[str, float]:
    """Share of unit ``queries`` [n, d] whose nearest of ``items`` [n, d] has their label (int [n]), beside chance."""
    hits = 0
    for rows in row_blocks(len(queries), len(items), chunk):
        hits += int(_same_class(queries[rows] @ items.T, labels[rows], labels).sum())
    return {"class_recall@1": hits / len(labels), "class_recall@1/chance": _meet(labels, labels)}


def _same_class(similarity: np.ndarray, wanted: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """bool [r]: is the nearest item, by ``similarity`` [r, n], of the ``wanted`` class ([r]; ``labels`` [n])?"""
    same = wanted[:, None] == labels[None, :]
    nearest = np.where(same, similarity, -np.inf).max(axis=1)
    stranger = np.where(same, -np.inf, similarity).max(axis=1)
    return nearest > stranger + TIE


def _meet(queries: np.ndarray, items: np.ndarray) -> float:
    """Probability that a query and an item, both drawn at random, have one label (int [m] and [n])."""
    classes = np.union1d(queries, items)
    shares = [
        np.bincount(np.searchsorted(classes, side), minlength=len(classes)) / len(side) for side in (queries, items)
    ]
    return float((shares[0] * shares[1]).sum())
