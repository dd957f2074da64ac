"""Two figures of a retrieval to read before training on its results: over how many items a query's weights are spread,
and over how many items all queries are.

``perplexity.json`` looks at one query at a time: exp(entropy of its weights), the effective number of items that it
copies. Near 1: single items; near the size of the memory: the mean of all. It cannot see a hub, an item that is near to
everything: 500 queries that all copy one item have the same figure as 500 that copy 500.

``top1_counts.json`` looks at the items: N(v), how many queries have v as their nearest one. distinct: items with N > 0.
largest: max N; largest_share: of the queries. skewness: of N over all items of the memory,

    S = mean((N - mean N)^3) / std(N)^3

the S_Nk of Radovanovic, Nanopoulos and Ivanovic 2010 (JMLR 11) with k = 1; 0 if all items have the same count. By
chance alone (each query draws its item) it is 1 / sqrt(mean N); far above that there are hubs.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np

from mmpretrain.data.writing import npy
from mmpretrain.files import replace_bytes, replace_text

PERPLEXITY_NAME, TOP1_NAME = "perplexity.json", "top1_counts.json"
EARLIER_NAME = "hubness.json"  # what perplexity.json was called at first
EARLIER_SUFFIX = "json"  # of what is kept by shard
SIDES = ("first", "second")

log = logging.getLogger(__name__)


class RetrievalFigures:
    """Both figures' numbers of every shard beside it (so that a killed command keeps them), summed up at the end.

    memories: items in the memories of the first and the second space.
    """

    def __init__(self, folder: Path, memories: list[int]) -> None:
        self._folder, self._memories = folder, memories

    def note(self, number: int, effective: np.ndarray, nearest: np.ndarray) -> None:
        """Keep a shard's effective numbers, float [b, 2], and nearest items, int [b, 2]; before the shard itself is
        written."""
        replace_bytes(self._path(number), npy(np.hstack([effective.astype(np.float64).round(4), nearest])))

    def summarize(self, shards: int) -> None:
        """Write both files from the numbers of all shards and log them; where they stand, remove the numbers.

        They stand without them if shards of a complete output were made once more: then they are as they were.
        """
        parts = [self._read(number) for number in range(shards)]
        if all(part is not None for part in parts):
            self._write([part for part in parts if part is not None])
        if read_perplexity(self._folder):
            for number in range(shards):
                self._path(number).unlink(missing_ok=True)
                self._path(number, EARLIER_SUFFIX).unlink(missing_ok=True)

    def _write(self, parts: list[np.ndarray]) -> None:
        parts = [part for part in parts if len(part)]
        width = min((part.shape[1] for part in parts), default=4)
        rows = np.concatenate([np.empty((0, width)), *(part[:, :width] for part in parts)])
        spread = {
            name: {"memory": size, **_spread(rows[:, side])}
            for side, (name, size) in enumerate(zip(SIDES, self._memories, strict=True))
        }
        if width == 4:  # an earlier version, which was interrupted, kept no nearest items
            counts = {
                name: top1_counts(rows[:, 2 + side].astype(np.int64), size)
                for side, (name, size) in enumerate(zip(SIDES, self._memories, strict=True))
            }
            replace_text(self._folder / TOP1_NAME, json.dumps(counts, indent=1) + "\n")
        replace_text(self._folder / PERPLEXITY_NAME, json.dumps(spread, indent=1) + "\n")
        for line in figure_lines(spread, read_top1_counts(self._folder)):
            log.info("%s", line)

    def _read(self, number: int) -> np.ndarray | None:
        """A shard's numbers, float64 [b, 4]; of an earlier version [b, 2] or [b, 4] of JSON; None: there are none."""
        if (path := self._path(number)).exists():
            return np.load(path, allow_pickle=False)
        earlier = self._path(number, EARLIER_SUFFIX)
        return np.array(json.loads(earlier.read_text(encoding="utf-8")), np.float64) if earlier.exists() else None

    def _path(self, number: int, suffix: str = "npy") -> Path:
        return self._folder / f".effective-{number:06d}.{suffix}"


def top1_counts(nearest: np.ndarray, memory: int) -> dict[str, float]:
    """What top1_counts.json says of one side. nearest: int [queries], the number of each one's nearest item. memory:
    how many items there are, those that are nobody's nearest included."""
    counts = np.unique(nearest, return_counts=True)[1]
    mean, absent = len(nearest) / memory, memory - len(counts)
    second, third = (float(((counts - mean) ** k).sum() + absent * (-mean) ** k) / memory for k in (2, 3))
    largest = int(counts.max(initial=0))
    return {
        "queries": len(nearest),
        "memory": memory,
        "distinct": len(counts),
        "largest": largest,
        "largest_share": round(largest / max(1, len(nearest)), 6),
        "skewness": round(third / second**1.5, 4) if second > 0 else 0.0,
    }


def read_perplexity(folder: Path) -> dict[str, dict[str, float]] | None:
    """perplexity.json of a split: side -> memory (items), and mean, median, p10, p90 of the effective number."""
    return _read(folder / PERPLEXITY_NAME) or _read(folder / EARLIER_NAME)


def read_top1_counts(folder: Path) -> dict[str, dict[str, float]] | None:
    """top1_counts.json of a split: side -> what :func:`top1_counts` says; None if an earlier version made it."""
    return _read(folder / TOP1_NAME)


def figure_lines(spread: dict[str, dict[str, float]], counts: dict[str, dict[str, float]] | None) -> list[str]:
    """Both figures in words, a line each."""
    lines = [
        f"{side} memory: of {found['memory']} items, a median of {found['median']:.4g} carry a query (80 % of the"
        f" queries: {found['p10']:.4g} to {found['p90']:.4g})"
        for side, found in spread.items()
    ]
    return lines + [
        f"{side} memory: {found['distinct']} of {found['memory']} items are the nearest of some query; one item is that"
        f" of {100 * found['largest_share']:.3g} % of them (skewness of the counts: {found['skewness']:.3g})"
        for side, found in (counts or {}).items()
    ]


def _read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def _spread(effective: np.ndarray) -> dict[str, float]:
    low, median, high = np.percentile(effective, [10, 50, 90]).round(4).tolist()
    return {"mean": round(float(effective.mean()), 4), "median": median, "p10": low, "p90": high}
