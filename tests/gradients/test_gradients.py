"""What ``mmpretrain gradients`` says of losses that are right, and of those that are not."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from mmpretrain.cli import app
from mmpretrain.gradients.measure import Measured, measure
from mmpretrain.gradients.question import Question
from mmpretrain.gradients.verdict import Verdict, rows
from mmpretrain.problems import UnusableError

WRONG = "tests.gradients.wrong"
ASKED = Question(f"{WRONG}:own_rows_live", processes=(2,), batch=8)


def answered(*arguments: str) -> tuple[int, dict[str, Any]]:
    """Exit code and JSON of the command, on two processes."""
    found = CliRunner().invoke(app, ["gradients", *arguments, "--processes", "2", "--batch", "8", "--json"])
    return found.exit_code, json.loads(found.stdout)


def verdicts(result: dict[str, Any]) -> dict[str, str]:
    """What -> verdict."""
    return {row["what"].removeprefix("gradient of "): row["verdict"] for row in result["rows"]}


@pytest.mark.processes
def test_a_right_loss_is_called_right() -> None:
    code, result = answered("mmpretrain.losses:SigmoidLoss", "--set", "bias=-3.0")
    assert code == 0 and result["right"]
    assert set(verdicts(result)) == {"value", "input 1", "input 2", "temperature.logit_scale", "bias"}


@pytest.mark.processes
def test_gradients_that_are_too_small_are_named() -> None:
    code, result = answered(f"{WRONG}:own_rows_live", "--learned", "scale=5")
    assert code == 1
    assert verdicts(result) == {"value": "right", "input 1": "times 1/W", "input 2": "times 1/W", "scale": "right"}


@pytest.mark.processes
@pytest.mark.slow
def test_losses_that_are_too_large_and_those_of_other_negatives_are_named() -> None:
    assert set(verdicts(answered(f"{WRONG}:summed")[1]).values()) == {"times W"}
    alone = verdicts(answered(f"{WRONG}:Alone", "--set", "scale=5.0")[1])
    assert alone["value"] == "other factor" and alone["input 1"] == "other direction"


@pytest.mark.processes
def test_a_loss_that_fails_on_some_rank_is_told_of() -> None:
    with pytest.raises(UnusableError, match=r"fails on rank [01] of 2: .*no second rank was thought of"):
        measure(replace(ASKED, loss=f"{WRONG}:breaks_on_two"))


@pytest.mark.parametrize(
    ("exact", "found", "verdict"),
    [
        ([1.0, 2.0], [1.0, 2.0], Verdict.right),
        ([1.0, 2.0], [2.0, 4.0], Verdict.times_world),
        ([1.0, 2.0], [0.5, 1.0], Verdict.over_world),
        ([1.0, 2.0], [3.0, 6.0], Verdict.scaled),
        ([1.0, 2.0], [2.0, -1.0], Verdict.direction),
        ([1.0, 2.0], [0.0, 0.0], Verdict.missing),
        ([1.0, 2.0], [float("nan"), 0.0], Verdict.not_finite),
    ],
)
def test_gradients_are_judged(exact: list[float], found: list[float], verdict: Verdict) -> None:
    alone, there = (Measured(1.0, {"input 1": torch.tensor(values)}) for values in (exact, found))
    value, gradient = rows({1: alone, 2: there}, ASKED)
    assert value.verdict is Verdict.right and gradient.verdict is verdict


def test_a_gradient_that_is_missing_is_named() -> None:
    alone, there = Measured(1.0, {"input 1": torch.ones(2)}), Measured(1.0, {"input 1": None})
    assert rows({1: alone, 2: there}, ASKED)[1].verdict is Verdict.missing


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nothing"], "names no loss"),
        (["torch:nn"], "is a module"),
        (["no_such_module:loss"], "cannot be loaded"),
        (["a:b", "--batch", "6", "--processes", "4"], "which 4 processes cannot share evenly"),
        (["a:b", "--processes", "two"], "write numbers with commas"),
        (["a:b", "--learned", "scale"], "write NAME=VALUE"),
        (["a:b", "--learned", "scale=high"], "is no number"),
        ([f"{WRONG}:Alone"], "give its arguments by --set"),
    ],
)
def test_questions_that_make_no_sense_are_refused_before_any_process_starts(arguments: list[str], said: str) -> None:
    found = CliRunner().invoke(app, ["gradients", *arguments, "--json"])
    assert found.exit_code == 1 and said in json.loads(found.stdout)["errors"][0]
