"""Saving beside training: what is written, when it counts, and what becomes of errors."""

from __future__ import annotations

import resource
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from mmpretrain.distributed.world import World
from mmpretrain.engine import checkpoint, checkpoint_files
from mmpretrain.engine.checkpoint_files import CheckpointError, DiskFullError
from mmpretrain.engine.engine import Engine
from mmpretrain.engine.host_copies import HostCopies
from mmpretrain.engine.saving import Saved, Saving, _first_error
from tests.engine import runs

TOKENS = ["method=m3col", "engine=zero1", "averaging.ema=0.9"]
FACTS = {"position": 7}


def test_a_copy_keeps_what_it_was_given_while_the_original_goes_on() -> None:
    flat = torch.arange(6.0)
    scale = {"value": 2.0}
    state = {"views": [flat[:2], flat[2:]], "again": flat, "step": 3, "empty": torch.empty(0), "scale": scale}
    taken = HostCopies().take("a", state)
    flat += 1
    scale["value"] = 4.0
    assert taken["again"].tolist() == [0, 1, 2, 3, 4, 5]
    assert taken["views"][1].untyped_storage().data_ptr() == taken["again"].untyped_storage().data_ptr()
    assert (taken["step"], taken["scale"]["value"], taken["empty"].numel()) == (3, 2.0, 0)


def test_memory_is_used_again() -> None:
    copies = HostCopies()
    place = copies.take("a", [torch.zeros(5)])[0].data_ptr()
    assert copies.take("b", [torch.zeros(5)])[0].data_ptr() != place
    assert copies.take("a", [torch.ones(5)])[0].data_ptr() == place


def train(engine: Engine, *indices: int) -> None:
    world = engine.world
    for index in indices:
        batch = runs.make_batch(index, world.rank, world.size, modalities=engine.config.data.modalities)
        engine.step(batch, runs.step_of(index, engine.config))


def both_ways(tokens: list[str], folder: str) -> None:
    """A checkpoint written at once, and the same one written only after two more steps."""
    engine = runs.start(runs.tiny_config(*tokens))
    train(engine, 0, 1)
    checkpoint.save(engine, Path(folder) / "at_once", 2, FACTS)
    go_on = threading.Event()
    saving = Saving(engine, Path(folder) / "beside")
    _hold_back(saving, go_on)
    saving.start(2, FACTS)
    train(engine, 2, 3)
    assert checkpoint_files.steps(Path(folder) / "beside") == [], "it is not there before it is complete"
    go_on.set()
    saving.join()


def _hold_back(saving: Saving, go_on: threading.Event) -> None:
    """Its threads write only when ``go_on`` is set."""

    def later(work: Callable[..., None], *arguments: object) -> None:
        go_on.wait()
        work(*arguments)

    runs.wrap(saving, "_work", later)


@pytest.mark.parametrize(
    "tokens",
    [
        [*TOKENS, "engine=zero0"],
        TOKENS,
        [*TOKENS, "engine=zero2", "engine.precision=float16"],
        [*TOKENS, "engine=zero3"],
    ],
    ids=["zero0", "zero1", "zero2-float16", "zero3"],
)
def test_what_is_written_beside_training_is_what_would_have_been_written_at_once(
    ranks: Callable, tmp_path: Path, tokens: list[str]
) -> None:
    ranks(2, both_ways, tokens, str(tmp_path))
    at_once, beside = (checkpoint_files.step_folder(tmp_path / name, 2) for name in ("at_once", "beside"))
    assert checkpoint_files.read_manifest(at_once) == checkpoint_files.read_manifest(beside)
    assert any(name.startswith("ema-") for name in checkpoint_files.read_manifest(beside)["files"])
    assert checkpoint_files.find_problem(beside) is None


def digest(folder: str | None) -> str:
    """Of the weights after 4 steps, with a checkpoint after each of them if there is a folder."""
    engine = runs.start(runs.tiny_config(*TOKENS))
    saving = Saving(engine, Path(folder or ""))
    for step in range(4):
        train(engine, step)
        if folder:
            saving.start(step + 1, FACTS)
    saving.join()
    return runs.weights_digest(engine)


def resumed_digest(folder: str) -> str:
    engine = runs.start(runs.tiny_config(*TOKENS), first=False)
    manifest = checkpoint.load_newest(engine, Path(folder))
    assert manifest is not None
    train(engine, *range(manifest["step"], 4))
    return runs.weights_digest(engine)


def test_saving_after_every_step_changes_no_bit_and_each_checkpoint_resumes(ranks: Callable, tmp_path: Path) -> None:
    straight = ranks(2, digest, None)
    assert ranks(2, digest, str(tmp_path)) == straight
    assert checkpoint_files.steps(tmp_path) == [4, 3], "checkpoint.keep_last is 2"
    checkpoint_files.prune(tmp_path, 3, keep_last=1, keep_every=None)
    assert ranks(2, resumed_digest, str(tmp_path)) == straight


def fill_the_disk(folder: str) -> tuple[bool, str, bool]:
    """Rank 1 can write no file of more than a kilobyte; whether it knew before the join, and what that said."""
    engine = runs.start(runs.tiny_config(*TOKENS))
    saving = Saving(engine, Path(folder))
    saving.start(10, FACTS)
    saving.join()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    if engine.world.rank == 1:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1024, before[1]))
    saving.start(20, FACTS)
    job = saving._job
    assert job is not None
    job.written.wait()
    failed, began = saving.failed, time.monotonic()
    told = runs.refusal(saving.start, 30, FACTS)
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    return failed, told, time.monotonic() - began < 5


def test_an_error_of_one_rank_is_told_by_all_with_its_cause(ranks: Callable, tmp_path: Path) -> None:
    (failed_0, told_0, soon), (failed_1, told_1, _) = ranks(2, fill_the_disk, str(tmp_path))
    assert (failed_0, failed_1, soon) == (False, True, True)
    assert told_0 == told_1
    assert told_0.startswith("rank 1 could not write") and "earlier checkpoints are untouched" in told_0
    assert checkpoint_files.steps(tmp_path) == [10]


def test_a_full_disk_stays_one_when_other_ranks_are_told() -> None:
    told = _first_error(DiskFullError("rank 0 could not write"), World.single())
    assert type(told) is DiskFullError and str(told) == "rank 0 could not write"
    assert type(_first_error(CheckpointError("late"), World.single())) is CheckpointError


def save_late(folder: str) -> tuple[list[int], str]:
    """A rank that is not done in time."""
    engine = runs.start(runs.tiny_config(*TOKENS))
    engine.config.engine.timeout_s = 1
    go_on = threading.Event()
    saving = Saving(engine, Path(folder))
    if engine.world.rank == 1:
        _hold_back(saving, go_on)
    saving.start(10, FACTS)
    told = runs.refusal(saving.join)
    go_on.set()
    return checkpoint_files.steps(Path(folder)), told


def test_a_rank_that_does_not_get_done_ends_the_wait(ranks: Callable, tmp_path: Path) -> None:
    for there, told in ranks(2, save_late, str(tmp_path)):
        assert there == []
        assert "has not written its part" in told or "ranks [1] did not finish writing" in told


class Killed(BaseException):
    """In the place of a SIGKILL: whatever the thread would have done next is not done."""


def die_at_every_point(folder: str) -> dict[str, list[int]]:
    """Checkpoints that are there after a writing thread died at each point of its way; 10 was there before."""
    engine = runs.start(runs.tiny_config(*TOKENS))
    points = {
        "first file": (torch, "save", 0),
        "second file": (torch, "save", 1),
        "average": (checkpoint, "save_file", 0),
        "hashing": (checkpoint_files, "describe", 1),
        "marker": (checkpoint_files, "replace_text", 0),
        "manifest": (checkpoint_files, "replace_text", 1),
        "rename": (checkpoint_files.os, "rename", 0),
        "latest": (checkpoint_files, "replace_text", 2),
    }
    there = {}
    for number, (point, (owner, name, calls)) in enumerate(points.items()):
        checkpoints = Path(folder) / str(number)
        Saving(engine, checkpoints).save(10, FACTS)
        there[point] = _after_death(engine, checkpoints, owner, name, calls)
    return there


def _after_death(engine: Engine, checkpoints: Path, owner: object, name: str, calls: int) -> list[int]:
    """Die in the call after so many ``calls`` of ``owner.name``; the checkpoints that are whole then."""
    original, left = getattr(owner, name), [calls]

    def killed(*arguments: Any, **named: Any) -> object:
        if threading.current_thread() is not threading.main_thread():
            if left[0] == 0:
                raise Killed
            left[0] -= 1
        return original(*arguments, **named)

    saving = Saving(engine, checkpoints)
    setattr(owner, name, killed)
    try:
        saving.start(20, FACTS)
        assert saving._job is not None and saving._job.thread is not None
        saving._job.thread.join()
    finally:
        setattr(owner, name, original)
    assert saving.failed, name
    found = checkpoint_files.steps(checkpoints)
    assert not [
        step for step in found if checkpoint_files.find_problem(checkpoint_files.step_folder(checkpoints, step))
    ]
    Saving(engine, checkpoints).save(30, FACTS)
    assert not list(checkpoints.glob("*.tmp")) and checkpoint_files.newest_step(checkpoints) == 30
    return found


def test_a_death_at_any_point_of_the_writing_leaves_whole_checkpoints(ranks: Callable, tmp_path: Path) -> None:
    (there,) = ranks(1, die_at_every_point, str(tmp_path))
    assert there.pop("latest") == [20, 10], "it was renamed into place"
    assert set(map(tuple, there.values())) == {(10,)} and len(there) == 7


def leave_early(folder: str) -> list[Saved]:
    """As a run does that fails while a checkpoint is written."""
    engine = runs.start(runs.tiny_config(*TOKENS))
    told: list[Saved] = []
    saving = Saving(engine, Path(folder), told.append)
    saving.start(10, FACTS)
    saving.leave(20.0)
    assert checkpoint_files.steps(Path(folder)) == [10]
    thread = saving._job.thread if saving._job else None
    if thread is not None:
        thread.join()
    return told


def test_a_run_that_fails_leaves_the_checkpoint_in_flight_complete(ranks: Callable, tmp_path: Path) -> None:
    first, second = ranks(2, leave_early, str(tmp_path))
    assert [saved.step for saved in first] == [10] and second == []
    assert first[0].facts == FACTS and first[0].seconds > 0
