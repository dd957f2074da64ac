"""Tiles of a matrix of similarities: their geometry, their scratch memory, and the arithmetic on them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from mmpretrain.config.objective import LARGEST_SCALE, Products

# exp(similarity - shift) with shift = bound - HEADROOM, if that is above 0: the largest possible term is exp(HEADROOM),
# and the sum of 10^6 of them is still finite. A sum below FLOOR may have lost terms to underflow.
HEADROOM = {torch.float32: 60.0, torch.float64: 600.0}
FLOOR = {torch.float32: 5e-26, torch.float64: 1e-280}
# Similarities lie in [-bound, bound], or 0.4 % beyond where rows are rounded, and no sum is smaller than the
# counterpart's term: up to these bounds none can fall below its floor.
SAFE_BOUND = {torch.float32: 57.5, torch.float64: LARGEST_SCALE}


@dataclass(frozen=True)
class Tile:
    """Rows of this rank against columns of a block of keys.

    rows, columns: in this rank's rows and in the block. first_row, first_column: their numbers in the whole batch.
    """

    rows: slice
    columns: slice
    first_row: int
    first_column: int

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.rows.stop - self.rows.start, self.columns.stop - self.columns.start

    def counterparts(self, matrix: Tensor) -> Tensor:
        """View of the entries of ``matrix`` (of this tile) whose row and column are the same sample."""
        return matrix.diagonal(self.first_row - self.first_column)


def tiles(rows: int, first: int, columns: int, start: int, size: int) -> Iterator[Tile]:
    """All tiles of ``rows`` rows, the first being number ``first`` of the whole batch, and a block from ``start``."""
    for top in range(0, rows, size):
        for left in range(0, columns, size):
            down, across = slice(top, min(top + size, rows)), slice(left, min(left + size, columns))
            yield Tile(down, across, first + top, start + left)


class Scratch:
    """Memory for the tiles in work, by name, taken once and used again."""

    def __init__(self, size: int, device: torch.device) -> None:
        self.size = size
        self.device = device
        self._memory: dict[tuple[str, torch.dtype], Tensor] = {}

    def take(self, name: str, shape: tuple[int, int], dtype: torch.dtype) -> Tensor:
        """A matrix of any content, of at most size x size entries; the same memory at each call with this name."""
        memory = self._memory.get((name, dtype))
        if memory is None or memory.numel() < shape[0] * shape[1]:
            memory = torch.empty(shape[0] * shape[1], dtype=dtype, device=self.device)
            self._memory[name, dtype] = memory
        return memory[: shape[0] * shape[1]].view(shape)


class Arithmetic:
    """Products of matrices: inputs of the chosen type, results of ``dtype`` (rounding is for float32 alone)."""

    def __init__(self, products: Products, dtype: torch.dtype) -> None:
        self.rounded = products is Products.bfloat16 and dtype is torch.float32

    def prepare(self, rows: Tensor) -> Tensor:
        """``rows`` in the type in which they travel and are multiplied."""
        return rows.to(torch.bfloat16) if self.rounded else rows

    def product(self, left: Tensor, right: Tensor, out: Tensor) -> Tensor:
        """``left @ right.T`` into ``out``; left [t, d] and right [c, d] as prepared."""
        if not self.rounded:
            return torch.mm(left, right.T, out=out)
        if left.is_cuda:
            return out.copy_(torch.mm(left, right.T, out_dtype=torch.float32))
        with _bfloat16_units():
            return torch.mm(left.float(), right.T.float(), out=out)

    def add_product(self, total: Tensor, weights: Tensor, rows: Tensor) -> None:
        """``total += weights @ rows``; total [t, d], weights [t, c] not prepared, rows [c, d] as prepared."""
        if not self.rounded:
            total.addmm_(weights.to(total.dtype), rows)
        elif rows.is_cuda:
            total += torch.mm(weights.to(torch.bfloat16), rows, out_dtype=torch.float32)
        else:
            with _bfloat16_units():
                total.addmm_(weights.to(torch.bfloat16).float(), rows.float())


@contextmanager
def _bfloat16_units() -> Iterator[None]:
    """Lets a processor with bfloat16 units use them for float32 products: the inputs are rounded already."""
    matmul = getattr(torch.backends.mkldnn, "matmul", None)
    if matmul is None:
        yield
        return
    before, matmul.fp32_precision = matmul.fp32_precision, "bf16"
    try:
        yield
    finally:
        matmul.fp32_precision = before
