"""The rate falls where the score on the validation split no longer rises, on all ranks, and a killed run knows it."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict
from pathlib import Path

import pytest

from mmpretrain.config.engine import OptimConfig, Schedule
from mmpretrain.engine.schedule import lr_factor
from mmpretrain.run_folder import read_lines
from mmpretrain.training.best import Best
from mmpretrain.training.plateau import Plateau, known_plateau
from tests.rank_pool import Ranks
from tests.training.test_best import run_folder, trained

PLATEAU = OptimConfig(schedule=Schedule.plateau, plateau_patience=2)


def best(step: int) -> Best:
    """A best step."""
    return Best("classification/accuracy", step, 0.5, "validation")


def test_the_rate_falls_after_so_many_measurements_that_are_no_better_and_counts_anew() -> None:
    plateau, falls = Plateau(), []
    for done in range(10, 90, 10):
        plateau = plateau.after(best(10 if done < 60 else 60), PLATEAU, done, 10)
        falls.append(plateau.drops)
    #               10 20 30 40 50 60 70 80: of equals the first is the best; 60 is better than all before
    assert falls == [0, 0, 1, 1, 2, 2, 2, 3]


def test_other_schedules_know_no_plateau() -> None:
    for schedule in (Schedule.constant, Schedule.cosine):
        assert Plateau().after(best(10), OptimConfig(schedule=schedule), 90, 10) == Plateau()
    assert Plateau().after(None, PLATEAU, 90, 10) == Plateau()


def test_a_checkpoint_of_before_there_was_a_plateau_has_none() -> None:
    assert known_plateau(None) == known_plateau({"step": 3}) == Plateau()
    facts = json.loads(json.dumps({"plateau": asdict(Plateau(2, 30))}))
    assert known_plateau(facts) == Plateau(2, 30)


def test_a_run_that_was_killed_after_the_rate_fell_goes_on_with_it(ranks: Ranks, digits: Path, tmp_path: Path) -> None:
    data = tmp_path / "digits"
    shutil.copytree(digits, data)
    shutil.copytree(data / "test", data / "validation")
    tokens = ["optim.schedule=plateau", "optim.plateau_patience=1", "optim.step_factor=0.5", "optim.lr=1e-3"]
    run = run_folder(data, tmp_path / "run", *tokens, "optim.warmup_samples=0")
    ranks(2, trained, str(run), 11)  # measured in steps 3, 6 (better) and 9 (not better); saved in step 10
    before = [line["lr"] for line in read_lines(run / "metrics.jsonl") if "lr" in line]
    ranks(2, trained, str(run))
    after = {line["step"]: line["lr"] for line in read_lines(run / "metrics.jsonl") if "lr" in line}
    assert before[8:10] == [1e-3, 5e-4]
    assert after == {step: 1e-3 if step <= 9 else 5e-4 for step in range(1, 13)}


@pytest.mark.parametrize(
    ("step", "drops", "factor"), [(50, 0, 0.5), (50, 1, 0.25), (100, 0, 1.0), (900, 0, 1.0), (900, 2, 0.25)]
)
def test_the_factor_is_that_of_the_drops_after_a_warm_up(step: int, drops: int, factor: float) -> None:
    config = OptimConfig(schedule=Schedule.plateau, step_factor=0.5, warmup_samples=100)
    assert lr_factor(config, step, 1000, drops) == factor
