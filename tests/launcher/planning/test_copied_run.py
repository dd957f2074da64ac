"""What a submission sees of a run whose checkpoints are only copies in a store."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from launcher.planning.previous_run import Action, History, read_history
from mmpretrain.config.compose import compose, save_config
from mmpretrain.config.root import Config
from mmpretrain.engine.checkpoint_store import CheckpointStore, StoreError
from mmpretrain.run_folder import RunFolder
from tests.engine.test_checkpoint_files import write


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """Of a run that is not here."""
    return compose(["method=clip", f"run.root={tmp_path}", "run.name=mine", f"checkpoint.copy_to={tmp_path / 'store'}"])


@pytest.fixture
def folder(tmp_path: Path, config: Config) -> RunFolder:
    """Where it would be; copies after two local ranks made 40 steps elsewhere."""
    store, elsewhere = CheckpointStore(str(tmp_path / "store"), "mine"), RunFolder(tmp_path / "elsewhere")
    elsewhere.path.mkdir()
    save_config(config, elsewhere.config)
    elsewhere.plan.write_text(json.dumps({"world_size": 2, "cluster": "local", "host": "elsewhere"}))
    for path in (elsewhere.config, elsewhere.plan):
        store.put_record(path)
    store.put(write(elsewhere.checkpoints, 40))
    return RunFolder(tmp_path / "mine")


def test_a_run_on_a_fresh_disk_goes_on_from_its_copies(folder: RunFolder, config: Config) -> None:
    history = read_history(folder, config, 2)
    assert (history.action, history.step, history.problems) == (Action.resume, 40, ())
    assert history.notes == (f"continues after step 40, fetched from {folder.path.parent / 'store' / 'mine'}",)
    assert history.stored == config and not folder.path.exists()


def test_so_does_one_whose_checkpoints_are_gone(folder: RunFolder, config: Config) -> None:
    folder.path.mkdir()
    save_config(config, folder.config)
    folder.plan.write_text(json.dumps({"world_size": 2}))
    history = read_history(folder, config, 2)
    assert (history.action, history.step, history.problems) == (Action.resume, 40, ())
    assert "fetched from" in history.notes[-1]


def test_its_own_checkpoints_come_first(folder: RunFolder, config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.path.mkdir()
    save_config(config, folder.config)
    write(folder.checkpoints, 10)
    monkeypatch.setattr(CheckpointStore, "steps", lambda self: pytest.fail("the store is not asked"))
    assert read_history(folder, config, 2) == History(Action.resume, 10)


def test_another_config_is_refused_as_that_of_any_run_is(folder: RunFolder, config: Config) -> None:
    config.optim.lr = 0.5
    (problem,) = read_history(folder, config, 2).problems
    assert "optim.lr: 0.001 -> 0.5" in problem and "its checkpoints are in" in problem


def test_a_store_that_does_not_answer_is_a_note(
    folder: RunFolder, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(CheckpointStore, "names", lambda self: (_ for _ in ()).throw(StoreError("no answer")))
    history = read_history(folder, config, 2)
    assert (
        history.action is Action.new and "no answer" in history.notes[0] and "the ranks look again" in history.notes[0]
    )


def test_an_empty_store_is_a_new_run(tmp_path: Path, config: Config) -> None:
    assert read_history(RunFolder(tmp_path / "mine"), config, 2) == History(Action.new)
