"""The rows of the Trifeatures driver are configs that can be run, and its tables say what the runs hold."""

from __future__ import annotations

from pathlib import Path

import pytest

from experiments.trifeatures_rows import EPOCH_STEPS, REFERENCE, ROWS, SHORT, Part, Row
from experiments.trifeatures_tables import (
    COLUMNS,
    ablation_table,
    against_the_pattern,
    curve_table,
    difference_cell,
    main_tables,
    orders_table,
    reference_runs,
    values,
)
from mmpretrain.config.compose import compose
from mmpretrain.config.evaluation import Search
from mmpretrain.config.methods.names import CommConfig, Pairing, Terms

DATA = Path("data/trifeatures")


def named(name: str) -> Row:
    """The row of this name."""
    return next(row for row in ROWS if row.name == name)


def scores(subject: str, **shares: float) -> dict[str, float]:
    """Scores of a run: 0.5 everywhere but where ``shares`` (factor -> share) say otherwise."""
    found = {name: 0.5 for names in COLUMNS.values() for name in names}
    found |= {name: share for factor, share in shares.items() for name in found if name.startswith(factor)}
    return {f"factors/{subject}/{name}": share for name, share in found.items()}


def test_names_and_titles_are_given_once() -> None:
    for key in ("name", "title"):
        assert len({getattr(row, key) for row in ROWS}) == len(ROWS)
    assert {row.part for row in ROWS} == set(Part)


@pytest.mark.parametrize(
    "name", ["cross", "comm", "comm-paper", "comm-unimodal", "comm-all-none", "comm-uncropped-all", "comm-crop-8"]
)
def test_a_row_becomes_the_config_that_its_title_says(name: str) -> None:
    row = named(name)
    config = compose(row.overrides(DATA))
    assert config.data.path == str(DATA) and config.evaluation.factors.search is Search.final
    assert row.epochs is not None and config.total_steps == row.epochs * EPOCH_STEPS
    assert bool(config.evaluation.every_steps) is row.curve
    first, second = (config.data.modalities[image].view for image in ("first", "second"))
    expected = {"comm-all-none": (0.3, 0.5), "comm-uncropped-all": (None, 0.3), "comm-crop-8": (0.08, 0.08)}
    assert tuple(v.crop and v.crop[0] for v in (first, second)) == expected.get(name, (0.3, 0.3))
    assert second.operations.keys() == ({"crop"} if name == "comm-all-none" else {"crop", "flip", "jitter", "grey"})
    if isinstance(config.method, CommConfig):
        assert config.method.pairing is (Pairing.paper if name == "comm-paper" else Pairing.code)
        assert config.method.terms is (Terms.unimodal if name == "comm-unimodal" else Terms.all)


def test_a_quick_run_has_fewer_steps_and_a_row_before_training_moves_nothing() -> None:
    assert compose(named("comm").overrides(DATA, steps=6)).total_steps == 6
    untrained = compose(named("comm-untrained").overrides(DATA))
    assert untrained.total_steps == 1 and untrained.optim.lr == 1e-12


def test_tables_hold_means_over_the_seeds_that_are_there() -> None:
    runs = {0: scores("fused", shape=0.98, texture1=0.7), 1: scores("fused", shape=1.0, texture1=0.9)}
    other = {1: scores("first+second", texture1=1.0, texture2=1.0)}
    results = {"comm": runs, "cross-self": other}
    assert values(runs, "fused", "U texture") == pytest.approx({0: 0.6, 1: 0.7})
    text = main_tables(ROWS, results)
    assert "| CoMM, unbiased | 2 | 99.0 ± 1.4 | 65.0 ± 7.1 |" in text and "FactorCL, unbiased" not in text
    # Of seeds that both rows have, and no others.
    assert "| U texture | CoMM, unbiased − Cross+Self, unbiased | +0.9 | -30.0 | 1 |" in orders_table(results)
    assert difference_cell([0.1, 0.3]) == "+20.0 (10.0)"


def test_ablations_stand_beside_the_same_number_of_epochs() -> None:
    late, early = scores("fused", shape=1.0), scores("fused", shape=0.7)
    curve = {key: {SHORT * EPOCH_STEPS: early[key], 2 * SHORT * EPOCH_STEPS: late[key]} for key in late}
    curves = {REFERENCE.name: {0: curve}}
    linear = {"comm-linear": {0: scores("fused", shape=0.6)}}
    lines = ablation_table([named("comm-linear")], linear, reference_runs(curves)).splitlines()
    assert lines[2].startswith("| CoMM as it is | 1 | 70.0 |") and lines[3].startswith("| linear fusion | 1 | 60.0 |")
    assert "| CoMM, biased | 5 | 1 | 70.0 |" in curve_table(ROWS, curves)


def test_means_outside_of_the_pattern_are_named_and_rows_that_were_not_run_are_not() -> None:
    assert against_the_pattern({}) == []
    assert against_the_pattern({"comm": {0: scores("fused", shape=0.9)}}) == [
        "comm: R (shape) is 90.0, expected were 95 to 100"
    ]
