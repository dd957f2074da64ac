"""What the kernels are told of a tile [t, c]: its matrix, who sees whom, and which entries are targets.

Tensors that are None cost nothing: a kernel is compiled without what it is not told. Vectors are contiguous, matrices
have contiguous rows.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Matrix(NamedTuple):
    """entries [t, c]; or None, and the kernel multiplies left [t, d] by right [c, d]. strides: from row to row."""

    entries: Tensor | None
    entries_stride: int
    left: Tensor | None
    left_stride: int
    right: Tensor | None
    right_stride: int
    depth: int

    @classmethod
    def of(cls, entries: Tensor) -> Matrix:
        """Of a matrix that there is."""
        return cls(entries, entries.stride(0), None, 0, None, 0, 0)

    @classmethod
    def product(cls, left: Tensor, right: Tensor) -> Matrix:
        """``left @ right.T``, never whole in memory; both of one type, bfloat16 or float16."""
        return cls(None, 0, left, left.stride(0), right, right.stride(0), left.shape[1])


class Masks(NamedTuple):
    """ids: int64, equal for copies of one sample; of what a row contains (a second sample: more_row_ids) and of the
    columns. valid: uint8, 0 for rows or columns that do not exist."""

    row_ids: Tensor | None = None
    more_row_ids: Tensor | None = None
    column_ids: Tensor | None = None
    row_valid: Tensor | None = None
    column_valid: Tensor | None = None


class Targets(NamedTuple):
    """What belongs to a row beside its own counterpart, of one kind at most.

    labels: int64, equal ones belong together. partner: int64 [t], in the whole batch, with weight [t] where it counts
    and other [t], above 0 where the row asks for it. alike: [t, c], similarities of the reference of soft targets;
    paired: uint8, 0 for samples that lack a side.
    """

    row_labels: Tensor | None = None
    column_labels: Tensor | None = None
    partner: Tensor | None = None
    other: Tensor | None = None
    weight: Tensor | None = None
    alike: Tensor | None = None
    alike_stride: int = 0
    row_paired: Tensor | None = None
    column_paired: Tensor | None = None

    @property
    def any(self) -> bool:
        """Whether there are such targets."""
        return any(tensor is not None for tensor in (self.row_labels, self.partner, self.alike))


class Place(NamedTuple):
    """Where a tile of t rows and c columns lies in the whole batch. hides_own: whether counterparts are left out."""

    rows: int
    columns: int
    first_row: int
    first_column: int
    hides_own: bool = True


def flags(mask: Tensor | None) -> Tensor | None:
    """A mask (bool) as the kernels read it: uint8, contiguous."""
    return None if mask is None else mask.contiguous().view(torch.uint8)
