"""Tiles of a matrix of similarities: their geometry, their scratch memory, and the arithmetic on them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from mmpretrain.config.objective import GPU_SCRATCH_MB, LARGEST_SCALE, MIB, ObjectiveConfig, Products

# exp(similarity - shift) with shift = bound - HEADROOM, if that is above 0: the largest possible term is exp(HEADROOM),
# and the sum of 10^6 of them is still finite. A sum below FLOOR may have lost terms to underflow.
HEADROOM = {torch.float32: 60.0, torch.float64: 600.0}
FLOOR = {torch.float32: 5e-26, torch.float64: 1e-280}
# Similarities lie in [-bound, bound], or 0.4 % beyond where rows are rounded, and no sum is smaller than the
# counterpart's term: up to these bounds none can fall below its floor.
SAFE_BOUND = {torch.float32: 57.5, torch.float64: LARGEST_SCALE}
# On a GPU tiles take this many bytes, or this part of its memory; they have at least so many rows, in steps.
GPU_SCRATCH, GPU_SHARE = GPU_SCRATCH_MB * MIB, 16
LEAST_ROWS, STEP = 512, 128
# Rounding of a float32 product's inputs where TF32 is on: 10 bits.
TF32_EPS = 2.0**-10


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


def tiles(rows: int, first: int, columns: int, start: int, shape: tuple[int, int]) -> Iterator[Tile]:
    """All tiles of ``rows`` rows, the first being number ``first`` of the whole batch, and a block from ``start``.

    shape: the most rows and columns of a tile.
    """
    for top in range(0, rows, shape[0]):
        for left in range(0, columns, shape[1]):
            down, across = slice(top, min(top + shape[0], rows)), slice(left, min(left + shape[1], columns))
            yield Tile(down, across, first + top, start + left)


def tile_shape(
    settings: ObjectiveConfig, rows: int, columns: int, entry_bytes: int, device: torch.device
) -> tuple[int, int]:
    """The most rows and columns of a tile, out of ``rows`` here and a block of ``columns``.

    entry_bytes: scratch memory that an entry takes. On a GPU tiles are strips, as wide as the block if they then have
    rows enough to be worth a launch: fewer, larger operations, within a budget of bytes.
    """
    budget = scratch_bytes(settings, device)
    if not budget:
        return settings.tile, settings.tile
    entries = max(1, budget // entry_bytes)
    high = entries // max(1, columns)
    if high >= min(rows, LEAST_ROWS):
        return max(1, min(rows, high - high % STEP if high > STEP else high)), columns
    high = max(1, min(rows, LEAST_ROWS, entries))
    return high, max(1, entries // high)


def scratch_bytes(settings: ObjectiveConfig, device: torch.device) -> int:
    """What tiles may take on ``device``; 0: squares of ``settings.tile``."""
    if settings.scratch_mb is not None:
        return settings.scratch_mb * MIB
    if device.type != "cuda":
        return 0
    if not torch.cuda.is_available():  # a device that only pretends to be there
        return GPU_SCRATCH
    return min(GPU_SCRATCH, torch.cuda.get_device_properties(device).total_memory // GPU_SHARE)


class Scratch:
    """Memory for the tiles in work, by name, taken once and used again."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._memory: dict[tuple[str, torch.dtype], Tensor] = {}

    def take(self, name: str, shape: tuple[int, int], dtype: torch.dtype) -> Tensor:
        """A matrix of any content; the same memory at each call with this name, for others at least as small."""
        memory = self._memory.get((name, dtype))
        if memory is None or memory.numel() < shape[0] * shape[1]:
            memory = torch.empty(shape[0] * shape[1], dtype=dtype, device=self.device)
            self._memory[name, dtype] = memory
        return memory[: shape[0] * shape[1]].view(shape)


class Arithmetic:
    """Products of matrices: inputs of the chosen type, results of ``dtype`` (rounding is for float32 alone)."""

    def __init__(self, products: Products, dtype: torch.dtype) -> None:
        self.rounded = products is Products.bfloat16 and dtype is torch.float32
        self.dtype = dtype

    def prepare(self, rows: Tensor) -> Tensor:
        """``rows`` in the type in which they travel and are multiplied."""
        return rows.to(torch.bfloat16) if self.rounded else rows

    def eps(self, device: torch.device) -> float:
        """How much a similarity may be off, as a part of the largest; ``own`` ones are computed without TF32."""
        exact = torch.finfo(self.dtype).eps
        if device.type != "cuda" or self.dtype is not torch.float32 or self.rounded or not _tf32():
            return exact
        return TF32_EPS / 4

    def product(self, left: Tensor, right: Tensor, out: Tensor) -> Tensor:
        """``left @ right.T`` into ``out``; left [t, d] and right [c, d] as prepared."""
        if not self.rounded:
            return torch.mm(left, right.T, out=out)
        if left.is_cuda:
            return torch.mm(left, right.T, out_dtype=torch.float32, out=out)
        with _bfloat16_units():
            return torch.mm(left.float(), right.T.float(), out=out)

    def weights(self, weights: Tensor, scratch: Tensor | None = None) -> Tensor:
        """``weights`` [t, c] as :meth:`add_product` takes them, once for both of a tile's gradients.

        scratch: [t, c] of float32, whose content is no longer needed; the rounded ones go there.
        """
        if self.rounded and weights.dtype is torch.bfloat16:  # as a kernel wrote them
            return weights if weights.is_cuda else weights.float()
        weights = weights.to(self.dtype)
        if not self.rounded:
            return weights
        if not weights.is_cuda:
            return weights.to(torch.bfloat16).float()
        if scratch is None:
            return weights.to(torch.bfloat16)
        half = scratch.view(torch.bfloat16).flatten()[: weights.numel()].view(weights.shape)
        return half.copy_(weights)

    def add_product(self, total: Tensor, weights: Tensor, rows: Tensor, *, first: bool = False) -> None:
        """``total += weights @ rows``; total [t, d], weights [t, c] as :meth:`weights` made them, rows [c, d] as
        prepared. first: total is known to be 0."""
        if not self.rounded:
            torch.mm(weights, rows, out=total) if first and rows.is_cuda else total.addmm_(weights, rows)
        elif rows.is_cuda and first:
            torch.mm(weights, rows, out_dtype=torch.float32, out=total)
        elif rows.is_cuda:
            total += torch.mm(weights, rows, out_dtype=torch.float32)
        else:
            with _bfloat16_units():
                total.addmm_(weights, rows.float())


def _tf32() -> bool:
    """Whether float32 products of a GPU may round their inputs to TF32 here."""
    return torch.get_float32_matmul_precision() != "highest" or torch.backends.cuda.matmul.allow_tf32


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
