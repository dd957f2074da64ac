"""What the kernels do with a block of a tile: where it lies, its entries, who sees whom, what belongs to whom.

Arguments: arguments.py. rows [R] and columns [C] are numbers in the tile, of ``height`` rows and ``width`` columns, of
which a block may reach beyond the end; ``inside``, ``own`` and ``hidden`` are bool [R, C].
"""

import triton
import triton.language as tl

GROUP = tl.constexpr(8)  # rows of blocks that run together, so that they read the same keys from the cache


@triton.jit
def place(height: tl.tensor, width: tl.tensor, ROWS: tl.constexpr, COLUMNS: tl.constexpr) -> tl.tuple:
    """Which row and column of blocks this program has."""
    down, across = tl.cdiv(height, ROWS), tl.cdiv(width, COLUMNS)
    number = tl.program_id(0)
    group = number // (GROUP * across)
    size = tl.minimum(down - group * GROUP, GROUP)
    within = number % (GROUP * across)
    return group * GROUP + within % size, within // size


@triton.jit
def vector(pointer: tl.tensor, index: tl.tensor, limit: tl.tensor) -> tl.tensor:
    """Entries of a vector, 0 beyond its end."""
    return tl.load(pointer + index, mask=index < limit, other=0)


@triton.jit
def product(
    matrix: tl.tuple,
    rows: tl.tensor,
    columns: tl.tensor,
    height: tl.tensor,
    width: tl.tensor,
    EVEN: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    INNER: tl.constexpr,
) -> tl.tensor:
    """float32 [R, C]: rows of left times rows of right. EVEN: whether their length is a multiple of INNER."""
    inner = tl.arange(0, INNER)
    # Beyond the end the first row stands in, which is cheaper than a mask in each step.
    left_rows = tl.where(rows < height, rows, 0).to(tl.int64) * matrix.left_stride
    right_rows = tl.where(columns < width, columns, 0).to(tl.int64) * matrix.right_stride
    left = matrix.left + left_rows[:, None] + inner[None, :]
    right = matrix.right + right_rows[None, :] + inner[:, None]
    total = tl.zeros((ROWS, COLUMNS), tl.float32)
    for start in range(0, matrix.depth, INNER):
        if EVEN:
            total = tl.dot(tl.load(left), tl.load(right), total)
        else:
            rest = inner < matrix.depth - start
            ours = tl.load(left, mask=rest[None, :], other=0.0)
            total = tl.dot(ours, tl.load(right, mask=rest[:, None], other=0.0), total)
        left += INNER
        right += INNER
    return total


@triton.jit
def offsets(rows: tl.tensor, columns: tl.tensor, stride: tl.tensor) -> tl.tensor:
    """Where the entries of a block lie in a matrix; tiles may have more than 2^31 of them."""
    return rows[:, None].to(tl.int64) * stride + columns[None, :]


@triton.jit
def entries(
    matrix: tl.tuple,
    rows: tl.tensor,
    columns: tl.tensor,
    inside: tl.tensor,
    height: tl.tensor,
    width: tl.tensor,
    EVEN: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    INNER: tl.constexpr,
) -> tl.tensor:
    """[R, C] of a matrix, read or multiplied here; of any value beyond the tile."""
    if matrix.entries is not None:
        found = tl.load(matrix.entries + offsets(rows, columns, matrix.entries_stride), mask=inside, other=0.0)
    else:
        found = product(matrix, rows, columns, height, width, EVEN, ROWS, COLUMNS, INNER)
    return found


@triton.jit
def asked_for(
    partner: tl.tensor,
    rows: tl.tensor,
    columns: tl.tensor,
    height: tl.tensor,
    first_column: tl.tensor,
) -> tl.tensor:
    """bool [R, C]: where a row's partner stands."""
    return vector(partner, rows, height)[:, None] == (columns.to(tl.int64) + first_column)[None, :]


@triton.jit
def copies(
    masks: tl.tuple, own: tl.tensor, rows: tl.tensor, columns: tl.tensor, height: tl.tensor, width: tl.tensor
) -> tl.tensor:
    """bool [R, C]: other copies of a sample that the row contains."""
    ids = vector(masks.column_ids, columns, width)
    found = vector(masks.row_ids, rows, height)[:, None] == ids[None, :]
    if masks.more_row_ids is not None:
        found = found | (vector(masks.more_row_ids, rows, height)[:, None] == ids[None, :])
    return found & ~own


@triton.jit
def hidden(
    masks: tl.tuple,
    targets: tl.tuple,
    own: tl.tensor,
    inside: tl.tensor,
    rows: tl.tensor,
    columns: tl.tensor,
    height: tl.tensor,
    width: tl.tensor,
    first_column: tl.tensor,
    HIDES_OWN: tl.constexpr,
) -> tl.tensor:
    """bool [R, C]: entries that are in no sum: beyond the tile, copies, of invalid rows or columns, counterparts."""
    unseen = ~inside
    if masks.row_ids is not None:
        twins = copies(masks, own, rows, columns, height, width)
        if targets.partner is not None:
            # What a row asks for is never hidden.
            wants = vector(targets.other, rows, height) > 0
            twins = twins & ~(asked_for(targets.partner, rows, columns, height, first_column) & wants[:, None])
        unseen = unseen | twins
    if masks.row_valid is not None:
        unseen = unseen | (vector(masks.row_valid, rows, height) == 0)[:, None]
    if masks.column_valid is not None:
        unseen = unseen | (vector(masks.column_valid, columns, width) == 0)[None, :]
    if HIDES_OWN:
        unseen = unseen | own
    return unseen


@triton.jit
def weights(
    masks: tl.tuple,
    targets: tl.tuple,
    unseen: tl.tensor,
    own: tl.tensor,
    inside: tl.tensor,
    rows: tl.tensor,
    columns: tl.tensor,
    height: tl.tensor,
    width: tl.tensor,
    first_column: tl.tensor,
    reference_shift: tl.tensor,
) -> tl.tensor:
    """m [R, C], of the type of ``reference_shift``: how much an entry is a target beside the own counterpart."""
    if targets.row_labels is not None:
        ours, theirs = vector(targets.row_labels, rows, height), vector(targets.column_labels, columns, width)
        found = ((ours[:, None] == theirs[None, :]) & ~own & ~unseen).to(reference_shift.dtype)
    elif targets.partner is not None:
        there = asked_for(targets.partner, rows, columns, height, first_column) & inside
        if masks.column_valid is not None:
            there = there & (vector(masks.column_valid, columns, width) != 0)[None, :]
        amount = vector(targets.weight, rows, height).to(reference_shift.dtype)
        found = tl.where(there, amount[:, None], 0.0).to(reference_shift.dtype)
    else:
        there = inside
        if masks.row_ids is not None:
            there = there & ~copies(masks, own, rows, columns, height, width)
        if targets.row_paired is not None:
            there = there & (vector(targets.row_paired, rows, height) != 0)[:, None]
            there = there & (vector(targets.column_paired, columns, width) != 0)[None, :]
        alike = tl.load(targets.alike + offsets(rows, columns, targets.alike_stride), mask=inside, other=0.0)
        likeness = tl.exp(alike.to(reference_shift.dtype) - reference_shift)
        found = tl.where(there, likeness, 0.0).to(reference_shift.dtype)
    return found
