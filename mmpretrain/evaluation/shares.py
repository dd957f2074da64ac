"""Which ranks keep the embeddings of a split, and what each keeps where none needs all. Shapes: n samples of the split,
s samples of this rank, d width, W ranks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, auto

import numpy as np


class Keep(Enum):
    """Where the rows of a split stay once they were made; the facts about samples (ordinals, labels of classes, which
    modalities there are) are always everywhere."""

    everywhere = auto()
    """All of them on every rank."""

    first = auto()
    """All of them on rank 0; every rank has its share."""

    shares = auto()
    """Every rank has its share; nobody has all of them."""


@dataclass(frozen=True)
class Share:
    """What a rank has made itself. rows: int64 [s], increasing, the places of its samples among the n of the split;
    every sample is one rank's. embeds: modality -> float32 [s, d]."""

    rows: np.ndarray
    embeds: dict[str, np.ndarray]


def owners(sizes: Sequence[int], world_size: int) -> tuple[np.ndarray, np.ndarray]:
    """Of rows that were gathered turn by turn, in each from all ranks side by side: the rank that made each, and its
    number among the rows of that rank; int64 [W sum of sizes] each. sizes: rows of a rank, by turn."""
    ranks = [np.repeat(np.arange(world_size), size) for size in sizes]
    before = np.cumsum([0, *sizes[:-1]])
    numbers = [start + np.tile(np.arange(size), world_size) for start, size in zip(before, sizes, strict=True)]
    return np.concatenate(ranks), np.concatenate(numbers)
