"""A run goes on with its data wherever they lie, and with no other data."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from launcher.planning.changed_data import changed_data
from launcher.planning.going_on import Differences
from mmpretrain.config.compose import compose
from mmpretrain.config.root import Config
from mmpretrain.data.index import load_index
from mmpretrain.run_folder import RunFolder

BEST = ("evaluation.best.score=retrieval/left->caption/recall@1", "evaluation.every_steps=5")


def config(data: Path, *tokens: str) -> Config:
    """Of a run that learns from ``data``."""
    return compose(["method=clip", "data=digits", f"data.path={data}", *tokens])


def looked_at(run: Path, before: Path, now: Path, *tokens: str, **facts: Any) -> Differences:
    """What going on after step 4 with the data in ``now`` means. facts: of the checkpoint, beside its index."""
    checkpoint = RunFolder(run).checkpoints / "step-00000004"
    checkpoint.mkdir(parents=True, exist_ok=True)
    index = load_index(before / "train").fingerprint
    (checkpoint / "MANIFEST.json").write_text(json.dumps({"files": {}, "index": index, **facts}))
    return changed_data(RunFolder(run), config(before), config(now, *tokens), 4, "mmpretrain train")


@pytest.fixture
def moved(digits: Path, tmp_path: Path) -> Path:
    """The same data in another place."""
    shutil.copytree(digits, tmp_path / "moved")
    return tmp_path / "moved"


def test_data_that_were_moved_are_those_of_the_run_and_others_are_not(
    digits: Path, moved: Path, tmp_path: Path
) -> None:
    assert looked_at(tmp_path / "run", digits, moved) == Differences()
    for part in ("train", "swap"):  # what was the test split is learned from
        (moved / ("test" if part == "swap" else part)).rename(moved / ("train" if part == "swap" else "swap"))
    (problem,) = looked_at(tmp_path / "run", digits, moved).problems
    assert problem.startswith(f"{moved} does not hold the data of the checkpoint after step 4 (index ")
    assert f"which lay in {digits}: give data.path the place where they lie now" in problem


def test_scores_that_decide_are_of_the_same_data(digits: Path, moved: Path, tmp_path: Path) -> None:
    known = load_index(digits / "test").fingerprint
    assert looked_at(tmp_path / "run", digits, moved, *BEST, measured={"test": known}) == Differences()
    (problem,) = looked_at(tmp_path / "run", digits, moved, *BEST, measured={"test": "0" * 64}).problems
    assert "is not the one that this run has measured on (index 000000000000 -> " in problem
    assert "evaluation.best.score compares the scores: restore it; or start another run" in problem
    assert looked_at(tmp_path / "run", digits, moved, measured={"test": "0" * 64}) == Differences()


def test_a_tokenizer_that_the_checkpoint_does_not_know_keeps_its_place(digits: Path, tmp_path: Path) -> None:
    place = f"model.encoders.caption.tokenizer={tmp_path / 'words'}"
    (problem,) = looked_at(tmp_path / "run", digits, digits, place).problems
    assert problem.startswith("model.encoders.caption.tokenizer: ") and "give it the value from before; or" in problem
    assert looked_at(tmp_path / "run", digits, digits, place, tokenizers={"caption": "0" * 64}) == Differences()
