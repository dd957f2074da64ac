"""Cosine similarities of many rows, a block at a time. Shapes: n rows, d width, r rows of a block."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

BUDGET = 2**24  # elements of a block
TIE = 1e-5  # similarities that differ by less count as equal


def unit_rows(rows: np.ndarray) -> np.ndarray:
    """``rows`` [n, d] scaled to length 1 (rows of length 0 stay 0)."""
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)


def similarity_chunks(
    queries: np.ndarray, items: np.ndarray, chunk: int | None = None
) -> Iterator[tuple[slice, np.ndarray]]:
    """Row ranges of ``queries`` [m, d] with their similarities [r, n] to ``items`` [n, d], from top to bottom.

    chunk: rows at a time (default: by BUDGET). Raises ValueError if the widths differ.
    """
    if queries.shape[1] != items.shape[1]:
        raise ValueError(
            f"retrieval needs embeddings of one width, these have {queries.shape[1]} and {items.shape[1]}:"
            " set model.embed_dim, or leave retrieval out of the evaluation"
        )
    size = chunk or max(1, BUDGET // len(items))
    for start in range(0, len(queries), size):
        rows = slice(start, min(start + size, len(queries)))
        yield rows, queries[rows] @ items.T
