"""Tidying up: what is kept is kept, living runs are refused, links are not followed."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from launcher.runs import reading as runs_reading
from launcher.runs.clean import Part, delete, delete_of_sweep, leftovers, leftovers_of_sweep
from launcher.runs.reading import Reading, read_run
from mmpretrain.console import CommandError
from mmpretrain.run_folder import Busy, locked
from tests.launcher.runs.test_reading import make_run


def checkpoint(run: Path, step: int, *, whole: bool = True, **facts: Any) -> None:
    """A checkpoint with one file of 10 bytes, and such facts in its manifest."""
    folder = run / "checkpoints" / f"step-{step:08d}"
    folder.mkdir(parents=True)
    (folder / "weights").write_bytes(b"0" * (10 if whole else 4))
    files = {"weights": {"size": 10, "sha256": hashlib.sha256(b"0" * 10).hexdigest()}}
    (folder / "MANIFEST.json").write_text(json.dumps({"files": files, **facts}))


@pytest.fixture
def run(tmp_path: Path) -> Reading:
    """A failed run with everything that runs leave behind."""
    folder = make_run(tmp_path / "a", "failed", best={"step": 20})
    for step in (10, 20, 30, 40):
        checkpoint(folder, step, whole=step != 40)
    for name in ("code", "logs", "release", "tensorboard", "checkpoints/step-00000050.tmp", ".code.7.old"):
        (folder / name).mkdir()
        (folder / name / "file").write_text("12345")
    (folder / "consumed.jsonl").write_text("")
    return read_run(folder, "a", {})


def names(run: Reading, *parts: Part, everything: bool = False) -> list[str]:
    """What can be deleted."""
    found = leftovers(run, parts or list(Part), everything=everything)
    return [thing.path.relative_to(run.path).as_posix() for thing in found]


def test_the_newest_whole_checkpoint_the_best_and_the_release_stay(run: Reading) -> None:
    assert names(run, Part.checkpoints) == ["checkpoints/step-00000010", "checkpoints/step-00000050.tmp"]
    assert names(run) == [*names(run, Part.checkpoints), "code", ".code.7.old", "logs", "consumed.jsonl", "tensorboard"]
    sizes = {thing.path.name: thing.size for thing in leftovers(run, [Part.code])}
    assert sizes == {"code": 5, ".code.7.old": 5}
    things = leftovers(run, list(Part))
    delete(run, things)
    left = sorted(path.name for path in run.path.iterdir())
    assert left == [".lock", "checkpoints", "config.yaml", "metrics.jsonl", "plan.json", "release", "status.json"]
    assert sorted(path.name[-2:] for path in (run.path / "checkpoints").iterdir()) == ["20", "30", "40"]


def test_of_a_sweep_its_copies_of_the_code_go_with_those_of_its_runs(tmp_path: Path) -> None:
    sweep = tmp_path / "sweep"
    runs = [make_run(sweep / name, "failed") for name in ("a", "b")]
    (sweep / "sweep.json").write_text(json.dumps({"runs": [{"path": str(path)} for path in runs]}))
    for name in (".code/old", ".code/new", ".code.7", ".arrays/1"):
        (sweep / name).mkdir(parents=True)
    (sweep / ".arrays/1/0").symlink_to("../../a")
    (runs[0] / "code").symlink_to("../.code/old")
    things = leftovers_of_sweep(sweep, list(Part))
    assert [thing.path.relative_to(sweep).as_posix() for thing in things] == [
        ".code/new",
        ".code/old",
        ".code.7",
        ".arrays/1",
    ]
    assert not leftovers_of_sweep(sweep, [Part.checkpoints])
    (runs[1] / "code").symlink_to("../.code/new")  # it was started again meanwhile
    for path in runs[:1]:
        delete(run := read_run(path, "a", {}), leftovers(run, [Part.code]))
    delete_of_sweep(sweep, things)
    assert sorted(path.name for path in sweep.iterdir()) == [".code", "a", "b", "sweep.json"]
    assert [path.name for path in (sweep / ".code").iterdir()] == ["new"] and (runs[0] / "plan.json").exists()


def test_everything_includes_them_and_leaves_the_records(run: Reading) -> None:
    delete(run, leftovers(run, list(Part), everything=True))
    left = sorted(path.name for path in run.path.iterdir())
    assert left == [".lock", "config.yaml", "metrics.jsonl", "plan.json", "status.json"]


def test_the_best_step_of_the_checkpoint_to_go_on_from_and_the_released_one_stay(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "a", "failed", best={"step": 50}, released_step=20)
    for step in (10, 20, 30):
        checkpoint(folder, step)
    checkpoint(folder, 40, best={"step": 10})
    checkpoint(folder, 50, whole=False)  # the status speaks of this one
    assert names(read_run(folder, "a", {}), Part.checkpoints) == ["checkpoints/step-00000030"]


def test_older_checkpoints_stay_if_the_newest_does_not_hold_what_it_says(run: Reading) -> None:
    things = leftovers(run, [Part.checkpoints])
    (run.path / "checkpoints" / "step-00000030" / "weights").write_bytes(b"1" * 10)
    with pytest.raises(CommandError, match=r"has changed since it was written.*nothing was deleted"):
        delete(run, things)
    assert all(thing.path.exists() for thing in things)


def test_a_run_that_was_started_since_it_was_read_is_left_alone(run: Reading, monkeypatch: pytest.MonkeyPatch) -> None:
    things = leftovers(run, [Part.code])
    monkeypatch.setattr(runs_reading, "is_controller", lambda pid, logs: True)
    with pytest.raises(CommandError, match="may be in use"):
        delete(run, things)
    assert (run.path / "code").exists()


def test_without_a_whole_checkpoint_none_is_offered(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "a", "failed")
    for step in (10, 20):
        checkpoint(folder, step, whole=False)
    assert names(read_run(folder, "a", {}), Part.checkpoints) == []


def test_living_runs_and_those_that_are_being_started_are_refused(
    run: Reading, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    things = leftovers(run, [Part.code])
    with locked(run.path / ".lock", Busy.fail), pytest.raises(CommandError, match="a launcher is starting"):
        delete(run, things)
    assert (run.path / "code").exists()
    monkeypatch.setattr(runs_reading, "is_controller", lambda pid, logs: True)
    with pytest.raises(CommandError, match="may be in use \\(process 1\\)"):
        leftovers(read_run(make_run(tmp_path / "b"), "b", {}), [Part.code])


def test_of_a_link_only_the_link_is_deleted(run: Reading, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").write_text("")
    (run.path / "wandb").symlink_to(outside)
    delete(run, leftovers(run, [Part.trackers]))
    assert not (run.path / "wandb").is_symlink() and (outside / "kept").exists()
