"""The thread that copies checkpoints: what it keeps, and that training never depends on it."""

from __future__ import annotations

import logging
import threading
from pathlib import Path

import pytest

from mmpretrain.config.engine import CheckpointConfig
from mmpretrain.engine import checkpoint_files
from mmpretrain.engine.checkpoint_store import CheckpointStore, StoreError
from mmpretrain.engine.copies import Copies
from mmpretrain.run_folder import RunFolder
from tests.engine.test_checkpoint_files import write


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    """A run folder with records."""
    folder = RunFolder(tmp_path / "mine")
    folder.path.mkdir()
    folder.metrics.write_text('{"step": 1}\n')
    return folder


@pytest.fixture
def store(tmp_path: Path) -> CheckpointStore:
    """A store in another folder."""
    return CheckpointStore(str(tmp_path / "store"), "mine")


def test_it_keeps_the_newest_every_nth_and_the_best(run: RunFolder, store: CheckpointStore) -> None:
    copies = Copies(store, run, CheckpointConfig(keep_every=40, keep_copies=2))
    for step in range(10, 80, 10):
        write(run.checkpoints, step)
        checkpoint_files.prune(run.checkpoints, step, keep_last=1, keep_every=40, keep=[20])
        copies.renew([20])
        assert copies.finish(20)
        assert step in store.steps()
    assert store.names() == store.steps() == [70, 60, 40, 20]
    assert store.record("metrics.jsonl") == '{"step": 1}\n'


def test_later_copies_than_the_run_has_made_go(run: RunFolder, store: CheckpointStore) -> None:
    store.put(write(run.path.parent / "earlier", 90))
    write(run.checkpoints, 50)
    copies = Copies(store, run, CheckpointConfig())
    copies.renew()
    assert copies.finish(20) and store.steps() == [50]


def test_an_outage_is_a_warning_and_all_is_copied_with_the_next_checkpoint(
    run: RunFolder, store: CheckpointStore, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    copies = Copies(store, run, CheckpointConfig())
    write(run.checkpoints, 10)
    with monkeypatch.context() as broken, caplog.at_level(logging.WARNING):
        broken.setattr(CheckpointStore, "names", lambda self: (_ for _ in ()).throw(StoreError("no answer")))
        copies.renew()
        assert copies.finish(20)
    assert "not copied now" in caplog.text and "no answer" in caplog.text
    write(run.checkpoints, 20)
    copies.renew()
    assert copies.finish(20) and store.steps() == [20, 10]


def test_a_store_that_hangs_is_not_waited_for(
    run: RunFolder, store: CheckpointStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on = threading.Event()
    names = CheckpointStore.names
    monkeypatch.setattr(CheckpointStore, "names", lambda self: go_on.wait() and names(self))
    copies = Copies(store, run, CheckpointConfig())
    write(run.checkpoints, 10)
    copies.renew()
    assert not copies.finish(0.05)
    go_on.set()
    assert copies.finish(20)


def test_a_checkpoint_that_is_deleted_while_it_is_copied_is_passed_over(
    run: RunFolder, store: CheckpointStore, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write(run.checkpoints, 10)
    copies, put_record = Copies(store, run, CheckpointConfig()), CheckpointStore.put_record

    def meanwhile(self: CheckpointStore, path: Path) -> None:
        (folder / "heads.pt").unlink(missing_ok=True)
        put_record(self, path)

    monkeypatch.setattr(CheckpointStore, "put_record", meanwhile)
    copies.renew()
    assert copies.finish(20) and store.steps() == [] and not caplog.text
