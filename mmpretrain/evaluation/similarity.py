"""Cosine similarities of many rows, a block at a time. Shapes: n rows, d width, r rows of a block."""

from __future__ import annotations

import numpy as np

BUDGET = 2**24  # elements of a block
ROWS = 512  # of a block, at most: few enough that all ranks get some of them
TIE = 1e-5  # similarities that differ by less count as equal


def unit_rows(rows: np.ndarray) -> np.ndarray:
    """``rows`` [n, d] scaled to length 1, whatever their length (rows of length 0 stay 0)."""
    largest = np.abs(rows).max(axis=1, initial=0, keepdims=True)
    extreme = ((largest > 1e15) | (largest < 1e-10)) & (largest > 0)
    # Their squares leave float32; the others keep their digits.
    rows = np.divide(rows, largest, out=rows.copy(), where=extreme) if extreme.any() else rows
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)


def row_blocks(rows: int, columns: int, chunk: int | None = None) -> list[slice]:
    """``rows`` in runs, from top to bottom. chunk: rows of a run (default: ROWS, or fewer of many ``columns``)."""
    size = chunk or max(1, min(ROWS, BUDGET // max(1, columns)))
    return [slice(start, min(start + size, rows)) for start in range(0, rows, size)]


def check_widths(queries: np.ndarray, items: np.ndarray, metric: str = "retrieval") -> None:
    """Raises ValueError, for ``metric``, if rows of ``queries`` [m, d] and ``items`` [n, d] cannot be compared."""
    if queries.shape[1] != items.shape[1]:
        raise ValueError(
            f"{metric} needs embeddings of one width, these have {queries.shape[1]} and {items.shape[1]}:"
            f" set model.embed_dim, or leave {metric} out of the evaluation"
        )
