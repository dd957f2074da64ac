"""Bytes on the wire of a contrastive loss, forward and backward: counted, and held against the formula.

    python -m benchmarks.wire [--quick] [--worlds 1 2 4 8] [--rows 64] [--width 512] [--pairs 1]

Counted at torch.distributed's calls on as many gloo processes (benchmarks/wire_count.py says how); the formula is that
of docs/contrastive.md, and a difference of one byte is an error. Gradients of parameters are not part of it. The last
line is JSON.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from typing import Any

from benchmarks.measure import finish, show
from benchmarks.wire_count import Load, check
from mmpretrain.config.objective import Negatives, Products
from tests.rank_pool import RankPool

MODES = (Negatives.gather, Negatives.ring, Negatives.local)


def open_clip_bytes(size: int, rows: int, width: int) -> int:
    """ClipLoss, local loss with exact gradients: both sides are gathered, and the gradients of both come home."""
    return (size - 1) * rows * 4 * (2 * width + 2 * width)


def count(size: int, loads: Sequence[Load]) -> list[float]:
    """Bytes that each of ``size`` ranks sends for each load."""
    with RankPool(size) as group:

        def run(_: int, function: Callable[..., Any], *arguments: Any) -> list[Any]:
            return group.run(function, arguments, timeout=600)

        return [check(load, size, run) for load in loads]


def main() -> None:
    """Count on groups of all sizes; a table, and JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few rows")
    parser.add_argument("--worlds", type=int, nargs="+", default=[1, 2, 4, 8], help="numbers of processes")
    parser.add_argument("--rows", type=int, help="rows per rank")
    parser.add_argument("--width", type=int, default=512, help="numbers per embedding")
    parser.add_argument("--pairs", type=int, default=1)
    options = parser.parse_args()
    rows = options.rows or (64 if options.quick else 1024)
    modes = [(mode, products) for mode in MODES for products in Products]
    loads = [Load(rows, options.width, options.pairs, mode, products) for mode, products in modes]
    counts = [
        {"ranks": size, "negatives": load.negatives, "products": load.products, "bytes": round(sent)}
        for size in options.worlds
        for load, sent in zip(loads, count(size, loads), strict=True)
    ]
    table = [
        [str(c["ranks"]), c["negatives"], c["products"], f"{c['bytes']:,}", _beside(c, rows, options)] for c in counts
    ]
    title = f"bytes sent per rank and step: {rows} rows per rank, width {options.width}, {options.pairs} pairs"
    show(title, ["ranks", "negatives", "products", "bytes", "beside open_clip's (by formula)"], table)
    finish({"equal_to_formula": True, "rows": rows, "width": options.width, "pairs": options.pairs, "counts": counts})


def _beside(count: dict, rows: int, options: argparse.Namespace) -> str:
    theirs = options.pairs * open_clip_bytes(count["ranks"], rows, options.width)
    return f"{count['bytes'] / theirs:.3f}" if theirs else ""


if __name__ == "__main__":
    main()
