"""What is retrieved: the items of a modality, and which items of two modalities belong together.

An item is a sample's embedding, as a rule. Where captions count one by one there are several of a sample; where samples
hold the same picture there is one of them all. Two items belong together if a sample has both.
Shapes: n samples, q queries, i items, d width.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mmpretrain.evaluation.embeddings import Embeddings
from mmpretrain.evaluation.similarity import TIE


@dataclass(frozen=True)
class Items:
    """rows: [i, d]. samples: int64 [i], the first sample that each item is of. pairs: int64 [p, 2], every (sample,
    item) that go together."""

    rows: np.ndarray
    samples: np.ndarray
    pairs: np.ndarray


def items_of(embeddings: Embeddings, modality: str) -> Items:
    """The items of ``modality``, of samples that all have it."""
    size = len(embeddings)
    if modality in embeddings.captions:
        texts = embeddings.captions[modality]
        return Items(texts.embeds, texts.owners, np.stack([texts.owners, np.arange(len(texts.owners))], axis=1))
    if modality in embeddings.same:
        _, first, item = np.unique(embeddings.same[modality], return_index=True, return_inverse=True)
        return Items(embeddings.embeds[modality][first], first, np.stack([np.arange(size), item], axis=1))
    every = np.arange(size)
    return Items(embeddings.embeds[modality], every, np.stack([every, every], axis=1))


@dataclass(frozen=True)
class Relation:
    """Which items are right for each query: of query q those in ``right[starts[q]:starts[q + 1]]``, at least one.

    starts: int64 [q + 1]. right: int64. items: how many there are.
    """

    starts: np.ndarray
    right: np.ndarray
    items: int

    @classmethod
    def one_to_one(cls, size: int) -> Relation:
        """Item i for query i."""
        return cls(np.arange(size + 1), np.arange(size), size)

    @property
    def counts(self) -> np.ndarray:
        """int64 [q]: right items of each query."""
        return np.diff(self.starts)

    def groups(self) -> np.ndarray | None:
        """int64 [q]: queries with equal numbers have a right item in common; None if none have."""
        first = self.right[self.starts[:-1]]
        return first if len(np.unique(first)) < len(first) else None

    def nearest(self, rows: slice, similarity: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Of a block of queries: similarity [r] of the first right item, and how many right ones are tied with it.

        similarity: [r, i].
        """
        starts = self.starts[rows.start : rows.stop + 1]
        mine = np.repeat(np.arange(len(similarity)), np.diff(starts))
        found = similarity[mine, self.right[starts[0] : starts[-1]]]
        best = np.maximum.reduceat(found, starts[:-1] - starts[0])
        return best, np.bincount(mine, found >= best[mine] - TIE, len(similarity))


def related(queries: Items, items: Items) -> Relation:
    """Right for a query are the items that some sample has together with it. Every query has one, as it is of a sample
    that has an item."""
    # Through the samples: for every (sample, query) all (sample, item).
    order = np.argsort(items.pairs[:, 0], kind="stable")
    of_sample = items.pairs[order, 0]
    first = np.searchsorted(of_sample, queries.pairs[:, 0], side="left")
    count = np.searchsorted(of_sample, queries.pairs[:, 0], side="right") - first
    steps = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
    right = items.pairs[order[np.repeat(first, count) + steps], 1]
    both = np.unique(np.stack([np.repeat(queries.pairs[:, 1], count), right], axis=1), axis=0)
    starts = np.searchsorted(both[:, 0], np.arange(len(queries.rows) + 1))
    return Relation(starts, both[:, 1], len(items.rows))
