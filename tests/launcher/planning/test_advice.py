"""How a run goes on after each of its ends."""

from __future__ import annotations

from pathlib import Path

import pytest
from rich.console import Console

from launcher.launching.launch import LaunchError, launch
from launcher.planning.advice import how_to_go_on
from mmpretrain.endings import Ending
from mmpretrain.engine.checkpoint_files import LATEST
from mmpretrain.run_folder import RunFolder
from tests.launcher.toy import toy_plan

TYPED = "mmpretrain train method=clip run.name=mine"


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    """Of a run that has saved after step 5."""
    (tmp_path / "mine" / "checkpoints" / "step-00000005").mkdir(parents=True)
    (tmp_path / "mine" / "checkpoints" / LATEST).write_text("step-00000005")
    return RunFolder(tmp_path / "mine")


@pytest.mark.parametrize("ending", [Ending.lost, Ending.hung, Ending.preempted, Ending.interrupted])
def test_the_same_command_goes_on_after_what_came_from_outside(folder: RunFolder, ending: Ending) -> None:
    assert how_to_go_on(folder, ending, TYPED) == f"the same command continues after step 5: {TYPED}"


def test_what_has_to_be_done_first_is_said(folder: RunFolder) -> None:
    assert how_to_go_on(folder, Ending.disk_full, TYPED).startswith("free some space")
    assert how_to_go_on(folder, Ending.bad_data, TYPED).startswith("repair the data")


def test_nothing_is_promised_that_would_end_the_same_way(folder: RunFolder) -> None:
    diverged = how_to_go_on(folder, Ending.diverged, TYPED)
    assert "would end the same way" in diverged and f"run.name=mine-2 init_from={folder.path}@5" in diverged
    assert how_to_go_on(folder, Ending.no_checkpoint, TYPED).startswith(
        "it cannot go on by itself: restore a checkpoint"
    )
    (folder.checkpoints / "step-00000005").rmdir()
    folder.release.mkdir()
    gone = how_to_go_on(folder, Ending.lost, TYPED)
    assert gone.startswith("it cannot go on by itself") and f"init_from={folder.release}" in gone


def test_a_folder_that_cannot_be_used_is_one_line(tmp_path: Path) -> None:
    """A file stands in its way; an error without a number and a name is told as well."""
    (tmp_path / "runs").write_text("a file")
    with pytest.raises(LaunchError) as caught:
        launch(toy_plan(tmp_path / "runs" / "mine"), Console(), follow_it=False)
    assert str(tmp_path / "runs") in str(caught.value) and "run.root=FOLDER" in str(caught.value)
    assert "None" not in str(caught.value)
