"""What an existing run folder means for a new submission."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from launcher.planning.previous_run import Action, History, is_controller, read_history
from mmpretrain.config.compose import compose, save_config
from mmpretrain.config.root import Config
from mmpretrain.run_folder import RunFolder, State


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """The config of the run that the folder holds."""
    return compose(["method=clip", f"run.root={tmp_path}", "run.name=mine"])


@pytest.fixture
def folder(tmp_path: Path, config: Config) -> RunFolder:
    """A folder after two local ranks ended with a checkpoint at step 40."""
    folder = RunFolder(tmp_path / "mine")
    (folder.checkpoints / "step-00000040").mkdir(parents=True)
    (folder.checkpoints / "step-00000040" / "MANIFEST.json").write_text('{"files": {}}')
    save_config(config, folder.config)
    folder.plan.write_text(json.dumps({"world_size": 2, "cluster": "local", "host": socket.gethostname()}))
    folder.update_status(state=State.failed, job_id=str(os.getpid()))
    return folder


def test_no_folder_is_a_new_run(tmp_path: Path, config: Config) -> None:
    assert read_history(RunFolder(tmp_path / "other"), config, 2) == History(Action.new)


def test_the_same_config_continues(folder: RunFolder, config: Config) -> None:
    assert read_history(folder, config, 2) == History(Action.resume, 40)
    config.run.root = "elsewhere/../runs"  # the same place, spelled differently
    assert read_history(folder, config, 2) == History(Action.resume, 40)


def test_a_completed_run_is_complete(folder: RunFolder, config: Config) -> None:
    folder.update_status(state=State.completed)
    assert read_history(folder, config, 2).action is Action.complete


def test_another_config_is_refused_and_all_of_it_is_said(folder: RunFolder, config: Config) -> None:
    config.optim.lr, config.seed = 0.5, 9
    (problem,) = read_history(folder, config, 4).problems
    assert "optim.lr: 0.001 -> 0.5; seed: 0 -> 9" in problem and "start another run: " in problem


def test_without_a_checkpoint_any_world_size_will_do(folder: RunFolder, config: Config) -> None:
    shutil.rmtree(folder.checkpoints / "step-00000040")
    assert read_history(folder, config, 4) == History(Action.resume, None)


@pytest.mark.processes
def test_a_living_local_job_is_left_alone(folder: RunFolder, config: Config) -> None:
    """A process with the controller's command line stands for the run; another program with its number does not."""
    program = [sys.executable, "-c", "import time; time.sleep(60)", "submitit.local._local"]
    with subprocess.Popen(program) as process:
        folder.update_status(state=State.running, job_id=str(process.pid))
        problems = read_history(folder, config, 2).problems
        process.kill()
    assert f"is in use by process {process.pid}" in problems[0]
    assert read_history(folder, config, 2).problems == ()
    other = folder.path.parent / "other" / "logs"
    other.mkdir(parents=True)
    with subprocess.Popen([*program, str(other)]) as process:  # of another run, which got the number later
        folder.update_status(job_id=str(process.pid))
        found = read_history(folder, config, 2).problems, is_controller(process.pid, other)
        process.kill()
    assert found == ((), True)
    folder.update_status(job_id=str(os.getpid()))
    assert read_history(folder, config, 2).problems == ()


def test_a_run_on_another_machine_is_left_alone(folder: RunFolder, config: Config) -> None:
    folder.plan.write_text(json.dumps({"world_size": 2, "cluster": "local", "host": "elsewhere"}))
    folder.update_status(state=State.running, job_id="1")
    assert "process 1 on elsewhere" in read_history(folder, config, 2).problems[0]
    folder.update_status(state=State.failed)
    assert read_history(folder, config, 2).problems == ()


def test_a_config_of_an_older_version_is_one_sentence(folder: RunFolder, config: Config) -> None:
    folder.config.write_text(folder.config.read_text() + "retired_key: 1\n")
    (problem,) = read_history(folder, config, 2).problems
    assert "does not fit this version of the code" in problem and "retired_key: unknown key" in problem


def test_what_was_filled_in_for_the_ranks_is_not_the_configs(folder: RunFolder, tmp_path: Path) -> None:
    """The stored mixing group is the local batch of two ranks."""
    config = compose(["method=m3col", f"run.root={tmp_path}", "run.name=mine"])
    stored = compose(["method=m3col", f"run.root={tmp_path}", "run.name=mine"])
    stored.method.bind(stored.data.global_batch // 2)
    save_config(stored, folder.config)
    assert read_history(folder, config, 2) == History(Action.resume, 40)
    assert read_history(folder, config, 4).problems == ()
    shutil.rmtree(folder.checkpoints / "step-00000040")
    assert read_history(folder, config, 4) == History(Action.resume, None)
    config.method.bind(32)
    assert "(method.mix_group: 64 -> 32)" in read_history(folder, config, 4).notes[0]


@pytest.mark.parametrize("name", ["plan.json", "status.json"])
@pytest.mark.parametrize("content", ["", '{"world_size": 2', "[]"])
def test_a_damaged_file_is_one_sentence(folder: RunFolder, config: Config, name: str, content: str) -> None:
    (folder.path / name).write_text(content)
    (problem,) = read_history(folder, config, 2).problems
    assert f"{folder.path / name} is damaged" in problem and "\n" not in problem
