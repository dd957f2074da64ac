"""Tiles to kernels: sizes of blocks, memory for what each block writes, and the sums over blocks.

Nothing here looks at a value on the device or depends on one, so that a step can be captured as a CUDA graph once its
kernels are compiled.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

import torch
from torch import Tensor

from mmpretrain.losses.fused.arguments import Masks, Matrix, Place, Targets
from mmpretrain.losses.fused.interpreter import readable, writable, written
from mmpretrain.losses.fused.kernels import backward_tile, forward_tile
from mmpretrain.losses.fused.sigmoid_kernel import sigmoid_tile

SUMS = 4  # mass, sim, E, farther


@dataclass(frozen=True)
class Blocks:
    """Of a kernel: rows and columns of a block, depth of a step of its product, warps and stages of a program."""

    rows: int
    columns: int
    inner: int
    warps: int
    stages: int


# A product pays by reuse of what is loaded, a pass over a matrix by many small blocks.
MULTIPLIED, READ = Blocks(128, 128, 64, 8, 3), Blocks(32, 128, 16, 4, 1)


@dataclass(frozen=True)
class Numbers:
    """Scalars on the device that all tiles of a pair share. values: [3], shift, tolerance and the reference's shift."""

    values: Tensor

    @classmethod
    def of(
        cls, shift: Tensor | float, tolerance: Tensor | float, reference_shift: Tensor | float, like: Tensor
    ) -> Numbers:
        """like: any tensor of the device and type of the sums."""
        parts = [
            value.to(like).reshape(()) if isinstance(value, Tensor) else like.new_full((), value)
            for value in (shift, tolerance, reference_shift)
        ]
        return cls(torch.stack(parts))


@dataclass(frozen=True)
class Weights:
    """Of a tile's gradient: exp and share of its rows [t] and columns [c], as the backward sweep has them."""

    row_exp: Tensor
    column_exp: Tensor | None = None
    row_share: Tensor | None = None
    column_share: Tensor | None = None


@dataclass(frozen=True)
class Own:
    """Similarities of own counterparts, of a tile's rows [t] and columns [c]."""

    rows: Tensor
    columns: Tensor


def forward(
    place: Place,
    scores: Matrix,
    masks: Masks,
    targets: Targets,
    own: Own | None,
    numbers: Numbers,
    *,
    columns: bool,
    keep: Tensor | None,
) -> tuple[Tensor, Tensor | None]:
    """Sums [4, t] over columns and, if ``columns``, [4, c] over rows, of the type of ``numbers``: mass and sim of
    further targets, E, and how many entries do not count against the own counterpart, being farther or targets. What
    is not asked for is 0.

    keep: [t, c] contiguous, where E goes.
    """
    blocks = _blocks(scores)
    down, across = ceil(place.rows / blocks.rows), ceil(place.columns / blocks.columns)
    row_sums = numbers.values.new_zeros(SUMS, across, place.rows)
    column_sums = numbers.values.new_zeros(SUMS, down, place.columns) if columns else None
    forward_tile[(down * across,)](
        readable(scores),
        masks,
        targets,
        None if own is None else own.rows.contiguous(),
        None if own is None else own.columns.contiguous(),
        numbers.values,
        keep,
        row_sums,
        column_sums,
        *_where(place),
        TARGETS=targets.any,
        **_options(scores, place, blocks),
    )
    return row_sums.sum(dim=1), None if column_sums is None else column_sums.sum(dim=1)


def backward(
    place: Place,
    scores: Matrix,
    kept: Tensor | None,
    masks: Masks,
    targets: Targets,
    weights: Weights,
    numbers: Numbers,
    gradient: Tensor,
) -> Tensor:
    """Writes a tile's E_ij (exp_i + exp_j) - m_ij (share_i + share_j) into ``gradient`` [t, c], and returns it.

    gradient: contiguous, of any floating type; may be the memory of ``scores``. kept: E [t, c], or None.
    """
    blocks = READ if kept is not None else _blocks(scores)
    grid = ceil(place.rows / blocks.rows) * ceil(place.columns / blocks.columns)
    vectors = (weights.row_exp, weights.column_exp, weights.row_share, weights.column_share)
    memory = writable(gradient)
    backward_tile[(grid,)](
        readable(scores),
        kept,
        masks,
        targets,
        *(None if vector is None else vector.contiguous() for vector in vectors),
        numbers.values,
        memory,
        *_where(place),
        TARGETS=targets.any,
        **_options(scores, place, blocks),
    )
    written(gradient, memory)
    return gradient


def sigmoid(
    place: Place,
    scores: Matrix,
    masks: Masks,
    own: Tensor | None,
    numbers: tuple[Tensor, Tensor, Tensor],
    gradient: Tensor | None,
    *,
    only_own: bool = False,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Of a tile of negatives: float64 sums of its losses and of their derivatives (0 without ``gradient``), and how
    many logits [t] are farther than the own one (own: [t]; None: not counted).

    numbers: scale, bias and tolerance of ties, scalars on the device. gradient: [t, c] contiguous, where derivatives
    go. only_own: rows see none but the entry of their own sample.
    """
    blocks, (scale, bias, tolerance) = _blocks(scores), numbers
    down, across = ceil(place.rows / blocks.rows), ceil(place.columns / blocks.columns)
    sums = scale.new_zeros(2, down * across)
    far = None if own is None else scale.new_empty(across, place.rows)
    memory = None if gradient is None else writable(gradient)
    sigmoid_tile[(down * across,)](
        readable(scores),
        masks,
        Targets(),
        None if own is None else own.contiguous(),
        scale,
        bias,
        tolerance,
        memory,
        sums,
        far,
        *_where(place),
        ONLY_OWN=only_own,
        **_options(scores, place, blocks),
    )
    if gradient is not None and memory is not None:
        written(gradient, memory)
    losses, slopes = sums.sum(dim=1, dtype=torch.float64)
    return losses, slopes, None if far is None else far.sum(dim=0)


def _blocks(scores: Matrix) -> Blocks:
    return MULTIPLIED if scores.entries is None else READ


def _where(place: Place) -> tuple[int, int, int, int]:
    """height, width, diagonal and first_column of the kernels."""
    return place.rows, place.columns, place.first_row - place.first_column, place.first_column


def _options(scores: Matrix, place: Place, blocks: Blocks) -> dict[str, int | bool]:
    return {
        "HIDES_OWN": place.hides_own,
        "EVEN": scores.depth % blocks.inner == 0,
        "ROWS": blocks.rows,
        "COLUMNS": blocks.columns,
        "INNER": blocks.inner,
        "num_warps": blocks.warps,
        "num_stages": blocks.stages,
    }
