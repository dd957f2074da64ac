"""InfoNCE through the kernels equals the dense formulas, in float64, for every kind of targets and mask."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import product

import pytest

from mmpretrain.config.objective import HardNegatives, Negatives, ObjectiveConfig
from tests.losses import test_hard_negatives as further
from tests.losses.cases import Case, Kind, Missing, Scale, Term
from tests.losses.run_cases import dense, difference, run

# Tiles of 13 of the 20 rows: blocks, tiles and the batch end in different places.
AGAIN, KEPT = ObjectiveConfig(Negatives.gather, tile=13, keep_mb=0), ObjectiveConfig(Negatives.gather, tile=13)

CASES: dict[str, Case] = {
    **{kind.value: Case((Term(kind=kind),), AGAIN, Missing.some, duplicates=True) for kind in Kind},
    "kept": Case((Term(kind=Kind.sup_con), Term(kind=Kind.mixup)), KEPT, Missing.some, duplicates=True),
    "one-way": Case((Term(kind=Kind.nt_xent, one_way=True),), KEPT),
    "column-of-scales": Case((Term(kind=Kind.labels),), AGAIN, scale=Scale.column),
    "frozen-reference": Case((Term(kind=Kind.soft, reference="audio"),), AGAIN, frozen=("encoders.audio",)),
}


@pytest.mark.parametrize("name", CASES)
def test_kernels_equal_the_dense_formulas(kernels: Counter[str], name: str) -> None:
    assert difference(run(CASES[name]), dense(CASES[name])) == ""
    assert kernels["forward"] >= 4 and kernels["backward"] >= 4


@pytest.mark.slow
@pytest.mark.parametrize("kind", list(Kind))
def test_full_matrix(kernels: Counter[str], kind: Kind) -> None:
    axes = product((AGAIN, KEPT), (Missing.none, Missing.some), (False, True), (False, True))
    for settings, missing, copies, one_way in axes:
        if one_way and kind in (Kind.soft, Kind.soft_detached, Kind.soft_own_scale):
            continue
        case = Case((Term(kind=kind, one_way=one_way),), settings, missing, copies)
        assert difference(run(case), dense(case)) == "", case


FURTHER = {
    "keys": further.Case(replace(AGAIN, tile=11)),
    "both-sides-masked": further.Case(
        replace(KEPT, tile=11), queries=True, lacking=True, missing=True, duplicates=True, same_side=True
    ),
    "own": further.Case(replace(AGAIN, tile=11, hard_negatives=HardNegatives.own)),
}


@pytest.mark.parametrize("name", FURTHER)
def test_hard_negatives_through_kernels_equal_the_dense_formula(kernels: Counter[str], name: str) -> None:
    case = FURTHER[name]
    assert further.difference([further.run(case)], further.dense(case)) == ""
    assert kernels["forward"] >= 4 and kernels["backward"] >= 4
