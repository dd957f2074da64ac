"""A run that goes on under another config: what is said, what is refused, and the commands that are named."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest

from launcher.planning.going_on import length_of_method
from launcher.planning.previous_run import Action, History, read_history
from mmpretrain.config.compose import compose, save_config
from mmpretrain.config.root import Config
from mmpretrain.run_folder import RunFolder, State

COMMAND = "mmpretrain train method=clip run.name=mine optim.lr=0.5"


def config(root: Path, *tokens: str) -> Config:
    """Of 100 steps with 10 samples each."""
    sizes = ["data.global_batch=10", "train.samples=1000", "optim.schedule=cosine", "optim.lr=1.0"]
    return compose(["method=clip", f"run.root={root}", "run.name=mine", *sizes, *tokens])


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    """A run that has ended, with a checkpoint at step 40."""
    folder = RunFolder(tmp_path / "mine")
    checkpoint = folder.checkpoints / "step-00000040"
    checkpoint.mkdir(parents=True)
    (checkpoint / "MANIFEST.json").write_text('{"files": {}}')
    save_config(config(tmp_path), folder.config)
    folder.plan.write_text(json.dumps({"world_size": 2, "cluster": "local", "host": socket.gethostname()}))
    folder.update_status(state=State.failed, job_id=None)
    return folder


def history(folder: RunFolder, *tokens: str) -> History:
    """What going on by these tokens means."""
    return read_history(folder, config(folder.path.parent, *tokens), 2, COMMAND)


def test_what_changes_no_result_changes_and_is_said(folder: RunFolder) -> None:
    found = history(folder, "data.workers=2", "checkpoint.every_steps=3", "run.root=elsewhere")
    assert found.action is Action.resume and not found.problems
    (note,) = found.notes
    assert "data.workers: 0 -> 2" in note and "checkpoint.every_steps: 200 -> 3" in note


def test_all_else_is_refused_with_the_commands_of_both_ways(folder: RunFolder) -> None:
    (folder.path.parent / "mine-2").mkdir()
    (problem,) = history(folder, "optim.lr=0.5", "data.workers=2").problems
    assert "optim.lr: 1.0 -> 0.5" in problem and "data.workers" not in problem
    anew = "mmpretrain train method=clip optim.lr=0.5 run.name=mine-3"
    assert f"start another run: {anew}; or" in problem and f"{anew} init_from={folder.path}" in problem


def test_a_longer_run_says_what_its_rate_does(folder: RunFolder) -> None:
    found = history(folder, "train.samples=2000")
    (note,) = found.notes
    assert found.action is Action.resume and not found.problems and "100 -> 200 steps" in note
    # half a cosine: 0.5 (1 + cos(pi 40/100)), and one step on by either length
    assert "was 0.6545 in step 40, would be 0.6395 in step 41 and is 0.8998" in note
    (note,) = history(folder, "train.samples=500").notes
    assert "100 -> 50 steps" in note and "is 0.07784" in note


def test_a_run_cannot_be_shorter_than_what_is_done(folder: RunFolder) -> None:
    (problem,) = history(folder, "train.samples=390").problems
    assert "is 39 steps" in problem and "400 at least" in problem and "mmpretrain export" in problem
    assert not history(folder, "train.samples=400").problems


def test_a_complete_run_goes_on_when_it_becomes_longer(folder: RunFolder) -> None:
    folder.update_status(state=State.completed)
    folder.release.mkdir()
    assert history(folder).action is Action.complete
    assert history(folder, "data.workers=1").action is Action.complete
    assert history(folder, "train.samples=2000").action is Action.resume
    (folder.checkpoints / "step-00000040").rename(folder.path / "gone")
    (problem,) = history(folder, "train.samples=2000").problems
    assert "checkpoints are gone" in problem and f"init_from={folder.release}" in problem


def test_before_the_first_checkpoint_everything_may_change(folder: RunFolder) -> None:
    (folder.checkpoints / "step-00000040").rename(folder.path / "gone")
    found = history(folder, "optim.lr=0.5")
    assert found.step is None and not found.problems and "optim.lr: 1.0 -> 0.5" in found.notes[0]
    (folder.checkpoints / "latest").write_text("step-00000040")  # there was one, which is lost
    assert history(folder, "optim.lr=0.5").problems


def test_a_constant_rate_goes_on(tmp_path: Path, folder: RunFolder) -> None:
    save_config(config(tmp_path, "optim.schedule=constant"), folder.config)
    (note,) = history(folder, "optim.schedule=constant", "train.samples=2000").notes
    assert "goes on as before (constant)" in note


@pytest.mark.parametrize(
    ("done", "samples", "refused"),
    [(2, 2000, False), (5, 2000, True), (9, 2000, False), (2, 1000, False), (5, 1001, False)],
)
def test_m3col_never_goes_back_to_its_first_loss(tmp_path: Path, done: int, samples: int, refused: bool) -> None:
    """Of 10 epochs of 100 samples it switches after 4; of 20 after 8."""
    tokens = ["method=m3col", "method.switch=0.4"]
    before, after = config(tmp_path, *tokens), config(tmp_path, *tokens, f"train.samples={samples}")
    found = length_of_method(before, after, done * 10, 100)
    assert bool(found.problems) is refused
    assert bool(found.notes) is (samples == 2000 and not refused)
