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
def store_sums(
    sums: tl.tensor,
    block: tl.tensor,
    blocks: tl.tensor,
    index: tl.tensor,
    limit: tl.tensor,
    mass: tl.tensor,
    sim: tl.tensor,
    exp: tl.tensor,
    above: tl.tensor,
) -> None:
    """Write a block's part of the four sums [4, blocks, limit]."""
    first, step, there = sums + block.to(tl.int64) * limit + index, blocks.to(tl.int64) * limit, index < limit
    tl.store(first, mass, mask=there)
    tl.store(first + step, sim, mask=there)
    tl.store(first + 2 * step, exp, mask=there)
    tl.store(first + 3 * step, above, mask=there)


@triton.jit
def above(own: tl.tensor, similarities: tl.tensor, tolerance: tl.tensor, counted: tl.tensor) -> tl.tensor:
    """bool [R, C]: not farther than the own counterpart (own: broadcast), as what cannot be compared (nan)."""
    return ~(similarities - own < -tolerance) & counted


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
    """mass, sim, E and above of a block, added up over its columns and over its rows; E itself where it is kept."""
    down, across = place(height, width, ROWS, COLUMNS)
    rows, columns = down * ROWS + tl.arange(0, ROWS), across * COLUMNS + tl.arange(0, COLUMNS)
    inside = (rows < height)[:, None] & (columns < width)[None, :]
    own = rows[:, None] + diagonal == columns[None, :]
    shift, tolerance, reference_shift = tl.load(numbers), tl.load(numbers + 1), tl.load(numbers + 2)
    found = entries(scores, rows, columns, inside, height, width, EVEN, ROWS, COLUMNS, INNER)
    unseen = hidden(masks, targets, own, inside, rows, columns, height, width, first_column, HIDES_OWN)
    seen = tl.where(unseen, float("-inf"), found)
    nothing = tl.zeros((ROWS, COLUMNS), shift.dtype)
    counted, mass, sim = inside, nothing, nothing
    if TARGETS:
        mass = weights(masks, targets, unseen, own, inside, rows, columns, height, width, first_column, reference_shift)
        sim = tl.where(mass > 0, mass * found, 0.0).to(shift.dtype)
        if targets.alike is None:
            counted = counted & ~(mass > 0)
    wide = tl.exp(seen.to(shift.dtype) - shift)
    if exponentials is not None:
        tl.store(exponentials + offsets(rows, columns, width), wide, mask=inside)
    nearer_rows, nearer_columns = nothing, nothing
    if own_rows is not None:
        ours = vector(own_rows, rows, height)[:, None]
        theirs = vector(own_columns, columns, width)[None, :]
        nearer_rows = above(ours, seen, tolerance.to(seen.dtype), counted).to(shift.dtype)
        nearer_columns = above(theirs, seen, tolerance.to(seen.dtype), counted).to(shift.dtype)
    blocks = tl.cdiv(width, COLUMNS)
    store_sums(
        row_sums, across, blocks, rows, height, tl.sum(mass, 1), tl.sum(sim, 1), tl.sum(wide, 1), tl.sum(nearer_rows, 1)
    )
    if column_sums is not None:
        totals = tl.sum(mass, 0), tl.sum(sim, 0), tl.sum(wide, 0), tl.sum(nearer_columns, 0)
        blocks = tl.cdiv(height, ROWS)
        store_sums(column_sums, down, blocks, columns, width, totals[0], totals[1], totals[2], totals[3])


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
