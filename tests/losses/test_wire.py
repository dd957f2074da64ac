"""Bytes that the contrastive loss sends are those of the formula in docs/contrastive.md, to the byte."""

from __future__ import annotations

import pytest

from benchmarks.wire_count import Load, check
from mmpretrain.config.objective import Negatives, Products
from tests.rank_pool import Ranks

MODES = (Negatives.gather, Negatives.ring, Negatives.local)


@pytest.mark.parametrize("size", [1, 2, 4])
@pytest.mark.parametrize("negatives", MODES)
def test_sends_what_the_formula_says(ranks: Ranks, size: int, negatives: Negatives) -> None:
    loads = [
        Load(5, 16, 1, negatives),
        Load(7, 8, 3, negatives, Products.bfloat16),
        Load(1, 12, 2, negatives, metrics=False, copies=1),
        Load(4, 8, 2, negatives, copies=2),
        Load(4, 8, 2, negatives, labels=True, masks=True),
        Load(4, 8, 2, negatives, further=3, margin=True),
        Load(4, 8, 1, negatives, metrics=False, further=1, margin=True, masks=True),
    ]
    for load in loads:
        check(load, size, ranks)


def test_bytes_per_row_do_not_grow_with_anything_but_the_ranks() -> None:
    sent = [Load(64, 512, 1, Negatives.gather).expected(size) for size in (2, 3, 9)]
    assert [total // sent[0] for total in sent] == [1, 2, 8]


def test_one_gather_instead_of_both_sides() -> None:
    """The usual form gathers queries and keys and sends both gradients home: 4 times 4 b d bytes."""
    sent = Load(64, 512, 1, Negatives.gather).expected(2)
    assert sent < 0.51 * (4 * 4 * 64 * 512)
