"""The kernels of InfoNCE: a tile's sums in the forward pass, its gradient in the backward pass.

Each program has one block of a tile and writes what only it knows: its part of the sums over rows and over columns, in
an order that never changes (there are no atomic additions), and its entries of E or of the gradient. Numbers that a
learned temperature decides (shift, tolerance) are read from memory on the device: the host decides nothing.
"""

import triton
import triton.language as tl

from mmpretrain.losses.fused.blocks import entries, hidden, offsets, place, vector, weights

PLACES = ["height", "width", "diagonal", "first_column"]  # other values need no other kernel


@triton.jit
def store_part(
    sums: tl.tensor,
    which: tl.constexpr,
    block: tl.tensor,
    blocks: tl.tensor,
    index: tl.tensor,
    limit: tl.tensor,
    values: tl.tensor,
) -> None:
    """Write a block's part of one of the sums [4, blocks, limit]."""
    first = sums + (block + which * blocks).to(tl.int64) * limit
    tl.store(first + index, values, mask=index < limit)


@triton.jit
def farther(own: tl.tensor, index: tl.tensor, limit: tl.tensor, tolerance: tl.tensor) -> tl.tensor:
    """Below which similarity an entry is farther than the own counterpart; nothing is, below what is no number."""
    ours = vector(own, index, limit)
    return ours - tolerance.to(ours.dtype)


@triton.jit(do_not_specialize=PLACES)
def forward_tile(
    scores: tl.tuple,
    masks: tl.tuple,
    targets: tl.tuple,
    own_rows: tl.tensor,
    own_columns: tl.tensor,
    numbers: tl.tensor,
    exponentials: tl.tensor,
    row_sums: tl.tensor,
    column_sums: tl.tensor,
    height: tl.tensor,
    width: tl.tensor,
    diagonal: tl.tensor,
    first_column: tl.tensor,
    HIDES_OWN: tl.constexpr,
    TARGETS: tl.constexpr,
    EVEN: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    INNER: tl.constexpr,
) -> None:
    """mass, sim, E and farther of a block, added up over its columns and over its rows; E itself where it is kept."""
    down, across = place(height, width, ROWS, COLUMNS)
    rows, columns = down * ROWS + tl.arange(0, ROWS), across * COLUMNS + tl.arange(0, COLUMNS)
    inside = (rows < height)[:, None] & (columns < width)[None, :]
    own = rows[:, None] + diagonal == columns[None, :]
    shift, tolerance, reference_shift = tl.load(numbers), tl.load(numbers + 1), tl.load(numbers + 2)
    across_all, down_all = tl.cdiv(width, COLUMNS), tl.cdiv(height, ROWS)
    found = entries(scores, rows, columns, inside, height, width, EVEN, ROWS, COLUMNS, INNER)
    unseen = hidden(masks, targets, own, inside, rows, columns, height, width, first_column, HIDES_OWN)
    never = tl.zeros((ROWS, COLUMNS), tl.int1)
    if TARGETS:
        mass = weights(masks, targets, unseen, own, inside, rows, columns, height, width, first_column, reference_shift)
        sim = tl.where(mass > 0, mass * found, 0.0).to(shift.dtype)
        store_part(row_sums, 0, across, across_all, rows, height, tl.sum(mass, 1))
        store_part(row_sums, 1, across, across_all, rows, height, tl.sum(sim, 1))
        if column_sums is not None:
            store_part(column_sums, 0, down, down_all, columns, width, tl.sum(mass, 0))
            store_part(column_sums, 1, down, down_all, columns, width, tl.sum(sim, 0))
        if targets.alike is None:
            never = mass > 0
    # One sum after the other, so that few matrices are in registers at a time.
    seen = tl.where(unseen, float("-inf"), found)
    if own_rows is not None:
        below = farther(own_rows, rows, height, tolerance)[:, None]
        far = ((seen < below) | never) & inside
        store_part(row_sums, 3, across, across_all, rows, height, tl.sum(far.to(tl.int32), 1).to(shift.dtype))
        below = farther(own_columns, columns, width, tolerance)[None, :]
        far = ((seen < below) | never) & inside
        store_part(column_sums, 3, down, down_all, columns, width, tl.sum(far.to(tl.int32), 0).to(shift.dtype))
    wide = tl.exp(seen.to(shift.dtype) - shift)
    if exponentials is not None:
        tl.store(exponentials + offsets(rows, columns, width), wide, mask=inside)
    store_part(row_sums, 2, across, across_all, rows, height, tl.sum(wide, 1))
    if column_sums is not None:
        store_part(column_sums, 2, down, down_all, columns, width, tl.sum(wide, 0))


@triton.jit(do_not_specialize=PLACES)
def backward_tile(
    scores: tl.tuple,
    kept: tl.tensor,
    masks: tl.tuple,
    targets: tl.tuple,
    row_exp: tl.tensor,
    column_exp: tl.tensor,
    row_share: tl.tensor,
    column_share: tl.tensor,
    numbers: tl.tensor,
    gradient: tl.tensor,
    height: tl.tensor,
    width: tl.tensor,
    diagonal: tl.tensor,
    first_column: tl.tensor,
    HIDES_OWN: tl.constexpr,
    TARGETS: tl.constexpr,
    EVEN: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    INNER: tl.constexpr,
) -> None:
    """E_ij (exp_i + exp_j) - m_ij (share_i + share_j) of a block, in the type of ``gradient``. kept: E, if there."""
    down, across = place(height, width, ROWS, COLUMNS)
    rows, columns = down * ROWS + tl.arange(0, ROWS), across * COLUMNS + tl.arange(0, COLUMNS)
    inside = (rows < height)[:, None] & (columns < width)[None, :]
    own = rows[:, None] + diagonal == columns[None, :]
    shift, reference_shift = tl.load(numbers), tl.load(numbers + 2)
    unseen = hidden(masks, targets, own, inside, rows, columns, height, width, first_column, HIDES_OWN)
    if kept is not None:
        wide = tl.load(kept + offsets(rows, columns, width), mask=inside, other=0.0)
    else:
        found = entries(scores, rows, columns, inside, height, width, EVEN, ROWS, COLUMNS, INNER)
        wide = tl.exp(tl.where(unseen, float("-inf"), found).to(shift.dtype) - shift)
    factor = vector(row_exp, rows, height)[:, None]
    if column_exp is not None:
        factor = factor + vector(column_exp, columns, width)[None, :]
    wide = wide * factor
    if TARGETS:
        mass = weights(masks, targets, unseen, own, inside, rows, columns, height, width, first_column, reference_shift)
        wide -= mass * (vector(row_share, rows, height)[:, None] + vector(column_share, columns, width)[None, :])
    tl.store(gradient + offsets(rows, columns, width), wide.to(gradient.dtype.element_ty), mask=inside)
