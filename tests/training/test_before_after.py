"""What fine-tuning changed: rows and verdicts, and sessions that measure their start without changing a step."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmpretrain.config.compose import compose, save_config
from mmpretrain.evaluation.bootstrap import mean_of
from mmpretrain.records import Change, Verdict, change_lines, main_changes, read_changes, read_evaluation
from mmpretrain.run_folder import RunFolder, read_lines
from mmpretrain.training.before_after import changes
from mmpretrain.training.session import Session
from mmpretrain.training.train import fit
from tests.engine.runs import forget_engines, weights_digest
from tests.rank_pool import Ranks

RECALL = "retrieval/left->caption/recall@1"


def test_a_row_has_both_values_their_intervals_and_that_of_the_difference() -> None:
    first, second = np.repeat([0.0, 1.0], [60, 40]), np.repeat([0.0, 1.0], [40, 60])
    before, after = (
        {"a/accuracy": float(v.mean()), "a/accuracy/low": 0.3, "a/accuracy/high": 0.7} for v in (first, second)
    )
    (row,) = changes(before, after | {"new/x": 1.0}, {"a/accuracy": mean_of(first)}, {"a/accuracy": mean_of(second)})
    assert (row.before, row.after, row.before_low, row.after_high) == (0.4, 0.6, 0.3, 0.7)
    assert row.change_low is not None and 0 < row.change_low < 0.2 and row.verdict is Verdict.better
    assert changes(before, after, {}, {})[0].verdict is None
    assert changes(before, after, {"a/accuracy": mean_of(first[1:])}, {"a/accuracy": mean_of(second)}) == []


@pytest.mark.parametrize(
    ("score", "edges", "verdict"),
    [
        ("retrieval/a->b/recall@1", (0.1, 0.2), Verdict.better),
        ("retrieval/a->b/recall@1", (-0.2, -0.1), Verdict.worse),
        ("retrieval/a->b/median_rank", (-2.0, -1.0), Verdict.better),
        ("general/retrieval/a->b/median_rank", (1.0, 2.0), Verdict.worse),
        ("retrieval/a->b/recall@1", (0.0, 0.2), Verdict.same),
    ],
)
def test_a_verdict_knows_which_way_is_better(score: str, edges: tuple[float, float], verdict: Verdict) -> None:
    assert Change(score, 0.0, 0.0, change_low=edges[0], change_high=edges[1]).verdict is verdict


def test_a_short_table_leaves_out_classes_and_what_stands_for_another_score() -> None:
    names = ["zero_shot/a->b/accuracy", "zero_shot/a->b/balanced_accuracy", "linear_probe/a/recall/cat"]
    names += ["general/factors/a/x/balanced_accuracy", "retrieval/a->b/recall@10"]
    shown = main_changes([Change(name, 0.1, 0.2) for name in names])
    assert [row.score for row in shown] == [names[0], names[3]]
    lines = change_lines([Change(name, 0.1, 0.2) for name in names])
    assert lines[1].startswith(names[0]) and lines[2] == "on the kept-out data:" and "+0.100" in lines[3]
    assert change_lines([]) == []


def run_folder(digits: Path, path: Path, *tokens: str) -> Path:
    config = compose(
        [
            "experiment=digits",
            f"data.path={digits}",
            f"model.encoders.caption.tokenizer={digits / 'tokenizer'}",
            *(f"model.encoders.{name}.config.num_hidden_layers=1" for name in ("left", "right", "caption")),
            "data.global_batch=12",
            "train.samples=48",
            "evaluation.final=[retrieval]",
            "evaluation.max_samples=40",
            "evaluation.batch=8",
            *tokens,
        ]
    )
    path.mkdir()
    save_config(config, path / "config.yaml")
    return path


def trained(folder: str) -> str:
    forget_engines()
    session = Session(RunFolder(Path(folder)))
    fit(session)
    return weights_digest(session.engine)


@pytest.mark.parametrize("zero", [1, pytest.param(3, marks=pytest.mark.slow)])
def test_measuring_the_start_changes_no_step_and_gives_the_same_on_any_number_of_ranks(
    ranks: Ranks, digits: Path, tmp_path: Path, zero: int
) -> None:
    general = ["finetune.before=true", f"finetune.general.path={digits}", "finetune.general.split=train"]
    plain = run_folder(digits, tmp_path / "plain", f"engine.zero={zero}")
    measured = run_folder(digits, tmp_path / "measured", f"engine.zero={zero}", *general)
    assert ranks(2, trained, str(plain)) == ranks(2, trained, str(measured))
    losses = [
        [line["loss"] for line in read_lines(run / "metrics.jsonl") if "loss" in line] for run in (plain, measured)
    ]
    assert losses[0] == losses[1] and len(losses[0]) == 4

    alone = run_folder(digits, tmp_path / "alone", *general)
    ranks(1, trained, str(alone))
    starts: list[dict[str, Any]] = [
        json.loads(RunFolder(run).evaluation_before.read_text()) for run in (measured, alone)
    ]
    assert starts[0] == pytest.approx(starts[1], abs=1e-6)
    assert f"general/{RECALL}/low" in starts[0] and RECALL in starts[0]
    found = {row.score: row for row in read_changes(RunFolder(measured))}
    assert found[f"general/{RECALL}"].before == starts[0][f"general/{RECALL}"]
    after = json.loads(RunFolder(measured).evaluation.read_text())
    assert found[RECALL].after == after[RECALL] and found[RECALL].change_low is not None
    assert not any(name.startswith("general/") for name in read_evaluation(RunFolder(measured)))
    card = (measured / "release" / "README.md").read_text()
    assert "## Before and after fine-tuning" in card and "| kept out | retrieval/left->caption/recall@1 |" in card
    assert not (plain / "changes.json").exists()
