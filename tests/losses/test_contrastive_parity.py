"""The gate: InfoNCE on 1, 2 and 4 ranks equals one process and the dense formulas, in every mode, in float64.

Losses, metrics, and the gradients of encoders and temperatures.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from itertools import product

import pytest
import torch
import torch.distributed as dist

from mmpretrain.config.objective import Negatives, ObjectiveConfig
from mmpretrain.distributed.world import World
from tests.losses.cases import (
    LOCAL_GROUP,
    SAME_SIDE,
    SOFT,
    Case,
    Kind,
    Missing,
    Scale,
    Term,
)
from tests.losses.run_cases import Result, dense, difference, mean_over_ranks, run, run_all
from tests.rank_pool import Ranks

GATHER, RING, LOCAL = (
    ObjectiveConfig(mode, tile=3, keep_mb=0) for mode in (Negatives.gather, Negatives.ring, Negatives.local)
)
THREE = (
    Term("image", "text", Kind.mixup),
    Term("image", "audio", Kind.labels),
    Term("text", "audio", Kind.soft),
)

ONE_WAY = [kind for kind in Kind if kind not in SOFT]

# One axis after the other; the full product is the slow test.
CASES: dict[str, Case] = {
    **{f"{kind.value}-gather": Case((Term(kind=kind),), GATHER) for kind in Kind},
    **{f"{kind.value}-ring": Case((Term(kind=kind),), RING) for kind in Kind},
    **{f"{kind.value}-masked": Case((Term(kind=kind),), RING, Missing.some) for kind in Kind},
    **{f"{kind.value}-copies": Case((Term(kind=kind),), GATHER, duplicates=True) for kind in Kind},
    **{f"{kind.value}-both": Case((Term(kind=kind),), RING, Missing.some, True) for kind in Kind},
    **{f"{kind.value}-kept": Case((Term(kind=kind),), replace(RING, keep_mb=64), Missing.some) for kind in Kind},
    "auto-gathers": Case(settings=ObjectiveConfig(Negatives.auto, tile=3)),
    "auto-goes-around": Case(settings=ObjectiveConfig(Negatives.auto, tile=3, gather_mb=0)),
    "one-tile": Case(settings=ObjectiveConfig(Negatives.ring, tile=1000, keep_mb=0)),
    "one-row-tiles": Case(settings=ObjectiveConfig(Negatives.ring, tile=1, keep_mb=0)),
    "some-tiles-kept": Case(settings=ObjectiveConfig(Negatives.ring, tile=64, keep_mb=1), rows=800),
    "column-of-scales": Case(settings=RING, scale=Scale.column, missing=Missing.some),
    "scales-mixup": Case((Term(kind=Kind.mixup),), GATHER, scale=Scale.flat),
    "scales-labels": Case((Term(kind=Kind.labels),), RING, scale=Scale.flat),
    "scales-soft": Case((Term(kind=Kind.soft_own_scale),), RING, scale=Scale.column, duplicates=True),
    "number-as-scale": Case(settings=RING, scale=Scale.number),
    "one-tower": Case(settings=GATHER, one_tower=True),
    "one-tower-against-itself": Case((Term("image", "image", Kind.nt_xent),), RING),
    "frozen-query": Case(settings=RING, frozen=("encoders.image",)),
    "frozen-key": Case(settings=GATHER, frozen=("encoders.text",)),
    "frozen-key-soft": Case((Term(kind=Kind.soft),), RING, frozen=("encoders.text",)),
    "frozen-reference": Case((Term(kind=Kind.soft, reference="audio"),), RING, frozen=("encoders.audio",)),
    "third-reference": Case((Term(kind=Kind.soft, reference="audio"),), GATHER),
    "reference-is-query": Case((Term(kind=Kind.soft, reference="image"),), RING),
    "frozen-nt-xent": Case((Term(kind=Kind.nt_xent),), RING, frozen=("encoders.text",)),
    "only-the-temperature": Case(settings=RING, frozen=("encoders",)),
    "three-pairs-sharing-sides": Case((Term(), Term("image", "audio"), Term("text", "audio")), RING),
    "there-and-back": Case((Term(), Term("text", "image")), GATHER),
    "three-kinds": Case(THREE, RING),
    "three-kinds-gather-copies": Case(THREE, GATHER, duplicates=True),
    **{f"{kind.value}-rank-without": Case((Term(kind=kind),), RING, Missing.half) for kind in Kind},
    **{f"{kind.value}-nobody": Case((Term(kind=kind),), GATHER, Missing.all) for kind in Kind},
    **{f"{kind.value}-row-per-rank": Case((Term(kind=kind),), RING, rows=4) for kind in Kind},
    "row-per-rank-missing": Case(THREE, RING, Missing.some, rows=4),
    "missing-for-some-pairs": Case(THREE, GATHER, Missing.half),
    **{f"{kind.value}-one-way": Case((Term(kind=kind, one_way=True),), RING) for kind in ONE_WAY},
    **{
        f"{kind.value}-one-way-both": Case((Term(kind=kind, one_way=True),), GATHER, Missing.some, True)
        for kind in ONE_WAY
    },
    "one-way-kept": Case((Term(kind=Kind.nt_xent, one_way=True), Term()), replace(RING, keep_mb=64), Missing.some),
    "one-way-frozen-query": Case((Term(kind=Kind.nt_xent, one_way=True),), RING, frozen=("encoders.image",)),
    "kept-for-some-kinds": Case((Term(kind=Kind.soft), Term(kind=Kind.nt_xent)), replace(GATHER, keep_mb=64)),
}
LOCALS = [Case((Term(kind=kind),), LOCAL) for kind in Kind]
LOCALS += [Case((Term(kind=kind),), LOCAL, Missing.some, True) for kind in Kind]
LOCALS.append(Case(THREE, replace(LOCAL, keep_mb=64)))


@pytest.mark.parametrize("name", CASES)
def test_one_process_equals_the_dense_formulas(name: str) -> None:
    assert difference(run(CASES[name]), dense(CASES[name])) == ""


@pytest.mark.parametrize("size", [2, 4])
def test_ranks_equal_the_dense_formulas(ranks: Ranks, size: int) -> None:
    assert failures(ranks, size, CASES.items()) == []


def test_local_negatives_are_the_mean_over_separate_batches(ranks: Ranks) -> None:
    for size in (1, 2, 4):
        cases = [case for case in LOCALS if case.rows // size % LOCAL_GROUP == 0]
        assert failures(ranks, size, enumerate(cases), parts=size) == []


def test_every_rank_gets_the_same_gradients(ranks: Ranks) -> None:
    case = Case(THREE, RING, Missing.some)
    first, *others = ranks(4, run, case)
    assert all(torch.equal(first.grads[name], other.grads[name]) for other in others for name in first.grads)


MEMBERS = [0, 2, 3]


def run_in_parts(cases: list[Case]) -> list[Result]:
    """The cases among MEMBERS, or, at the same time, on the rank that is none of them by itself."""
    groups = [dist.new_group(members) for members in (MEMBERS, [1])]
    world = World.current(group=groups[dist.get_rank() not in MEMBERS])
    return [run(case, world) for case in cases]


def test_a_part_of_the_ranks_has_the_loss_of_that_part_alone(ranks: Ranks) -> None:
    """Neighbors in the group are not neighbors in the world, and numbers in it are others than the world's."""
    kinds = (Kind.diagonal, Kind.mixup, Kind.sup_con)
    cases = [Case((Term(kind=kind),), mode, Missing.some, rows=18) for kind in kinds for mode in (GATHER, RING)]
    cases += [Case(settings=mode, scale=Scale.number, duplicates=True, rows=18) for mode in (GATHER, RING)]
    by_rank = ranks(4, run_in_parts, cases)
    for number, case in enumerate(cases):
        members = [by_rank[rank][number] for rank in MEMBERS]
        assert difference(mean_over_ranks(members), dense(case)) == "", case
        assert difference(by_rank[1][number], dense(case)) == "", case


@pytest.mark.slow
@pytest.mark.parametrize("mode", list(Negatives))
@pytest.mark.parametrize("kind", list(Kind))
@pytest.mark.parametrize("size", [1, 2, 4])
def test_full_matrix(ranks: Ranks, mode: Negatives, kind: Kind, size: int) -> None:
    axes = product((3, 1000), (0, 64), (Missing.none, Missing.some), (False, True), scales_for(kind))
    cases = [
        Case((Term(kind=kind),), ObjectiveConfig(mode, tile, keep, gather_mb=0), missing, copies, scale)
        for tile, keep, missing, copies, scale in axes
    ]
    named = {f"{c.settings} {c.missing} {c.duplicates} {c.scale}": c for c in cases}
    assert failures(ranks, size, named.items(), parts=size if mode is Negatives.local else 1) == []


def scales_for(kind: Kind) -> list[Scale]:
    """A side against itself has one scale."""
    one = kind in SAME_SIDE or kind in (Kind.soft, Kind.soft_detached)
    return [Scale.shared] if one else [Scale.shared, Scale.column]


def failures(ranks: Ranks, size: int, named: Iterable[tuple[object, Case]], parts: int = 1) -> list[str]:
    """What differs from the dense formulas, by case."""
    names, cases = zip(*named, strict=True)
    by_rank = ranks(size, run_all, list(cases))
    found = []
    for name, case, *results in zip(names, cases, *by_rank, strict=True):
        if problem := difference(mean_over_ranks(results), dense(case, parts)):
            found.append(f"{name}: {problem}")
    return found
