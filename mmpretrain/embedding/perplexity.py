"""Over how many memory items the weights of a retrieval are spread: a figure to read before training on its results.

The effective number of a query is exp(entropy of its weights). A median near 1 means that single items are copied,
often the same few (hubs); one near the size of the memory means that all queries get the same mean.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np

from mmpretrain.files import replace_text

PERPLEXITY_NAME = "perplexity.json"
EARLIER_NAME = "hubness.json"  # what the file was called at first

log = logging.getLogger(__name__)


class Perplexity:
    """Effective numbers of every shard beside it (so that a killed command keeps them), summed up at the end.

    memories: items in the memories of the first and the second space.
    """

    def __init__(self, folder: Path, memories: list[int]) -> None:
        self._folder, self._memories = folder, memories

    def note(self, number: int, effective: np.ndarray) -> None:
        """Keep a shard's numbers, float [b, 2]; before the shard itself is written."""
        replace_text(self._path(number), json.dumps(effective.round(4).tolist()))

    def summarize(self, shards: int) -> None:
        """Write perplexity.json from the numbers of all shards and log it; where it stands, remove the numbers.

        It stands without them if shards of a complete output were made once more: then it is as it was.
        """
        paths = [self._path(number) for number in range(shards)]
        if all(path.exists() for path in paths):
            self._write(paths)
        if read_perplexity(self._folder):
            for path in paths:
                path.unlink(missing_ok=True)

    def _write(self, paths: list[Path]) -> None:
        rows = np.array([row for path in paths for row in json.loads(path.read_text(encoding="utf-8"))])
        summary = {
            name: {"memory": size, **_figures(column)}
            for name, size, column in zip(("first", "second"), self._memories, rows.T, strict=True)
        }
        replace_text(self._folder / PERPLEXITY_NAME, json.dumps(summary, indent=1) + "\n")
        for name, figures in summary.items():
            log.info(
                "%s memory: of %d items, a median of %.4g carry a query", name, figures["memory"], figures["median"]
            )

    def _path(self, number: int) -> Path:
        return self._folder / f".effective-{number:06d}.json"


def read_perplexity(folder: Path) -> dict[str, dict[str, float]] | None:
    """perplexity.json of a split: side -> memory (items), and mean, median, p10, p90 of the effective number."""
    paths = (folder / name for name in (PERPLEXITY_NAME, EARLIER_NAME))
    path = next((path for path in paths if path.exists()), None)
    return json.loads(path.read_text(encoding="utf-8")) if path else None


def _figures(effective: np.ndarray) -> dict[str, float]:
    low, median, high = np.percentile(effective, [10, 50, 90]).round(4).tolist()
    return {"mean": round(float(effective.mean()), 4), "median": median, "p10": low, "p90": high}
