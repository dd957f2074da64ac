"""A run goes on from the copies of its checkpoints, and only from its own."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from mmpretrain.config.compose import compose
from mmpretrain.config.root import Config
from mmpretrain.distributed.world import World
from mmpretrain.engine import checkpoint_files
from mmpretrain.engine.checkpoint_files import CheckpointError
from mmpretrain.engine.checkpoint_store import CheckpointStore, StoreError
from mmpretrain.engine.copies import Copies
from mmpretrain.run_folder import RunFolder
from mmpretrain.training.run_checkpoints import bring_back
from mmpretrain.training.start_weights import StartWeights, write_start
from tests.engine.test_checkpoint_files import WEIGHTS


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """Of a run whose checkpoints are copied."""
    to = tmp_path / "store"
    return compose(["method=clip", f"run.root={tmp_path / 'runs'}", "run.name=mine", f"checkpoint.copy_to={to}"])


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    """Its folder."""
    (tmp_path / "runs" / "mine").mkdir(parents=True)
    return RunFolder(tmp_path / "runs" / "mine")


def write(checkpoints: Path, step: int, config: Config, **facts: object) -> Path:
    """A checkpoint as a run of one rank leaves it."""
    writing = checkpoint_files.start_writing(checkpoints, step)
    (writing / "deepspeed").mkdir()
    (writing / WEIGHTS).write_bytes(b"weights of step %d" % step)
    checkpoint_files.describe_share(writing, 0, world_size=1)
    stored = OmegaConf.to_container(OmegaConf.structured(config), enum_to_str=True)
    return checkpoint_files.commit(writing, {"step": step, "config": stored, **facts}, world_size=1)


def store_of(config: Config) -> CheckpointStore:
    store = CheckpointStore.of(config)
    assert store is not None
    return store


def copied(run: RunFolder, config: Config, *steps: int, **facts: object) -> None:
    """Checkpoints of these steps in the run's folder and in the store."""
    for step in steps:
        store_of(config).put(write(run.checkpoints, step, config, **facts))


def test_on_an_empty_disk_the_newest_copy_comes_back_with_records_and_best_step(run: RunFolder, config: Config) -> None:
    copied(run, config, 10, 20, 30, best={"step": 10, "score": "x", "value": 1.0})
    run.metrics.write_text('{"step": 30}\n')
    store_of(config).put_record(run.metrics)
    run.consumed.write_text("of another start\n")
    store_of(config).put_record(run.consumed)
    run.metrics.unlink()
    run.consumed.write_text("mine\n")
    shutil.rmtree(run.checkpoints)
    bring_back(run, config, World.single())
    assert checkpoint_files.steps(run.checkpoints) == [30, 10]
    assert checkpoint_files.named_latest(run.checkpoints) == 30
    assert run.metrics.read_text() == '{"step": 30}\n' and run.consumed.read_text() == "mine\n"


def test_a_sound_checkpoint_of_its_own_is_what_a_run_goes_on_from(run: RunFolder, config: Config) -> None:
    copied(run, config, 10, 20)
    (checkpoint_files.step_folder(run.checkpoints, 10) / WEIGHTS).unlink()
    bring_back(run, config, World.single())
    assert not (checkpoint_files.step_folder(run.checkpoints, 10) / WEIGHTS).exists(), "only the newest matters"


def test_a_run_that_went_on_elsewhere_goes_on_after_its_newest_copy(run: RunFolder, config: Config) -> None:
    """An older checkpoint on a disk that was left behind is no reason to do it all again, and to delete the copies."""
    copied(run, config, 10, 20)
    run.metrics.write_text('{"step": 10}\n{"step": 20}\n')
    store_of(config).put_record(run.metrics)
    run.metrics.write_text('{"step": 10}\n')
    shutil.rmtree(checkpoint_files.step_folder(run.checkpoints, 20))
    checkpoint_files.name_latest(run.checkpoints, 10)
    bring_back(run, config, World.single())
    assert checkpoint_files.steps(run.checkpoints) == [20, 10]
    assert run.metrics.read_text() == '{"step": 10}\n{"step": 20}\n'


def test_a_run_that_is_to_end_before_its_copies_is_refused(run: RunFolder, config: Config) -> None:
    copied(run, config, 10, 20)
    config.train.samples = 15 * config.data.global_batch
    with pytest.raises(CheckpointError, match=r"a checkpoint after step 20, and train.samples ends the run after"):
        bring_back(run, config, World.single())


def test_what_a_run_needs_of_its_start_comes_back_with_it(run: RunFolder, config: Config) -> None:
    write_start(run.start_weights, torch.nn.Linear(2, 2), torch.nn.ModuleDict())
    config.averaging.interpolate = [0.0, 1.0]
    run.outcomes_before.write_bytes(b"\xff\x00 no text")
    write(run.checkpoints, 10, config)
    copies = Copies(store_of(config), run, config.checkpoint)
    copies.renew()
    assert copies.finish(20)
    shutil.rmtree(run.path)
    run.path.mkdir()
    bring_back(run, config, World.single())
    assert run.outcomes_before.read_bytes() == b"\xff\x00 no text"
    assert StartWeights(run.start_weights, World.single()).part("model.weight", 0, 4).shape == (4,)


def test_of_a_damaged_newest_one_the_copy_comes_back(run: RunFolder, config: Config) -> None:
    copied(run, config, 10, 20)
    newest = checkpoint_files.step_folder(run.checkpoints, 20)
    (newest / WEIGHTS).write_bytes(b"damaged")
    bring_back(run, config, World.single())
    assert checkpoint_files.find_problem(newest) is None


def test_one_that_latest_names_and_that_is_gone_comes_back(run: RunFolder, config: Config) -> None:
    copied(run, config, 10, 20)
    shutil.rmtree(checkpoint_files.step_folder(run.checkpoints, 20))
    bring_back(run, config, World.single())
    assert checkpoint_files.steps(run.checkpoints) == [20, 10]


def test_an_older_sound_one_is_taken_before_an_older_copy(run: RunFolder, config: Config) -> None:
    copied(run, config, 10)
    write(run.checkpoints, 20, config)
    (write(run.checkpoints, 30, config) / WEIGHTS).write_bytes(b"damaged")
    bring_back(run, config, World.single())
    assert checkpoint_files.steps(run.checkpoints) == [30, 20, 10]
    assert checkpoint_files.find_problem(checkpoint_files.step_folder(run.checkpoints, 30)) is not None


def test_a_damaged_copy_is_passed_over_for_the_one_before(run: RunFolder, config: Config) -> None:
    copied(run, config, 10, 20)
    shutil.rmtree(run.checkpoints)
    newest = checkpoint_files.step_folder(Path(), 20).name
    (path,) = Path(str(config.checkpoint.copy_to)).glob(f"**/{newest}/{WEIGHTS}")
    path.write_bytes(b"weights of step 2O")
    bring_back(run, config, World.single())
    assert checkpoint_files.steps(run.checkpoints) == [10]


def test_copies_that_are_all_damaged_are_no_first_start(run: RunFolder, config: Config) -> None:
    copied(run, config, 10)
    shutil.rmtree(run.checkpoints)
    for path in Path(str(config.checkpoint.copy_to)).rglob(WEIGHTS.name):
        path.write_bytes(b"weights of step 1O")
    with pytest.raises(CheckpointError, match=r"no copy of this run can be used: .*has changed"):
        bring_back(run, config, World.single())


@pytest.mark.parametrize("here", [True, False])
def test_copies_of_another_run_are_refused(run: RunFolder, config: Config, here: bool) -> None:
    copied(run, config, 10)
    if not here:
        shutil.rmtree(run.checkpoints)
    config.optim.lr, config.data.workers, config.train.samples, config.engine.zero = 0.5, 3, 7, 2
    with pytest.raises(CheckpointError, match=r"holds checkpoints of another run \(optim.lr differ\)"):
        bring_back(run, config, World.single())


def test_a_store_that_does_not_answer_matters_only_without_a_checkpoint(
    run: RunFolder, config: Config, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    write(run.checkpoints, 10, config)
    monkeypatch.setattr(CheckpointStore, "names", lambda self: (_ for _ in ()).throw(StoreError("no answer")))
    with caplog.at_level(logging.WARNING):
        bring_back(run, config, World.single())
    assert "no answer" in caplog.text
    shutil.rmtree(run.checkpoints)
    with pytest.raises(CheckpointError, match=r"not known \(no answer\).*checkpoint.copy_to=null"):
        bring_back(run, config, World.single())


def test_without_copies_a_first_start_is_one(run: RunFolder, config: Config) -> None:
    bring_back(run, config, World.single())
    config.checkpoint.copy_to = None
    bring_back(run, config, World.single())
    assert not run.checkpoints.exists()


@pytest.mark.parametrize(
    ("token", "told"),
    [
        ("checkpoint.copy_to=http://host/folder", "one plain URL of s3://"),
        ("checkpoint.copy_to=simplecache::s3://bucket", "one plain URL of s3://"),
        ("checkpoint.copy_to=s3://me:secret@bucket", "give credentials where the store's library reads them"),
        ("checkpoint.keep_copies=1", "has no effect without checkpoint.copy_to"),
    ],
)
def test_places_that_cannot_be_meant_are_refused(token: str, told: str) -> None:
    with pytest.raises(ValueError, match=told) as refused:
        compose(["method=clip", token])
    assert "secret" not in json.dumps(str(refused.value))
