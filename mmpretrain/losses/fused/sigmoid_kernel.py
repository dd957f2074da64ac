"""The kernel of the sigmoid loss: a tile's losses and its gradient in one pass."""

import triton
import triton.language as tl

from mmpretrain.losses.fused.blocks import entries, hidden, offsets, place
from mmpretrain.losses.fused.kernels import PLACES, farther


@triton.jit
def softplus(logits: tl.tensor, small: tl.tensor) -> tl.tensor:
    """log(1 + exp(logits)), given small = exp(-|logits|), with all digits where that is far below 1."""
    total = 1.0 + small
    # What rounding took from the sum is put right by the quotient (Kahan).
    nothing = total == 1.0
    log1p = tl.where(nothing, small, tl.log(total) * (small / tl.where(nothing, 1.0, total - 1.0)))
    return tl.maximum(logits, 0.0) + log1p


@triton.jit(do_not_specialize=PLACES)
def sigmoid_tile(
    scores: tl.tuple,
    masks: tl.tuple,
    targets: tl.tuple,
    own_rows: tl.tensor,
    scale: tl.tensor,
    bias: tl.tensor,
    tolerance: tl.tensor,
    gradient: tl.tensor,
    sums: tl.tensor,
    row_farther: tl.tensor,
    height: tl.tensor,
    width: tl.tensor,
    diagonal: tl.tensor,
    first_column: tl.tensor,
    HIDES_OWN: tl.constexpr,
    ONLY_OWN: tl.constexpr,
    EVEN: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    INNER: tl.constexpr,
) -> None:
    """Of a block of negatives: sums of losses and of derivatives [2, blocks], and each derivative."""
    down, across = place(height, width, ROWS, COLUMNS)
    rows, columns = down * ROWS + tl.arange(0, ROWS), across * COLUMNS + tl.arange(0, COLUMNS)
    inside = (rows < height)[:, None] & (columns < width)[None, :]
    own = rows[:, None] + diagonal == columns[None, :]
    unseen = hidden(masks, targets, own, inside, rows, columns, height, width, first_column, HIDES_OWN)
    if ONLY_OWN:
        unseen = unseen | ~own
    found = entries(scores, rows, columns, inside, height, width, EVEN, ROWS, COLUMNS, INNER)
    logits = tl.where(unseen, float("-inf"), found * tl.load(scale) + tl.load(bias))
    if own_rows is not None:
        far = (logits < farther(own_rows, rows, height, tl.load(tolerance))[:, None]) & inside
        part = row_farther + across.to(tl.int64) * height + rows
        tl.store(part, tl.sum(far.to(tl.int32), 1).to(logits.dtype), mask=rows < height)
    small = tl.exp(-tl.abs(logits))
    number = tl.program_id(0)
    tl.store(sums + number, tl.sum(softplus(logits, small)))
    if gradient is not None:
        slope = tl.where(logits >= 0, 1.0, small) / (1.0 + small)
        tl.store(sums + tl.num_programs(0) + number, tl.sum(slope))
        tl.store(gradient + offsets(rows, columns, width), slope.to(gradient.dtype.element_ty), mask=inside)
