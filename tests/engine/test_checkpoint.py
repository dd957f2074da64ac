"""Collective save and load: what happens when a rank cannot write, and to damaged, lost or foreign checkpoints."""

from __future__ import annotations

import resource
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from mmpretrain.engine import checkpoint, checkpoint_files
from tests.engine import runs

TOKENS = ["method=m3col", "engine=zero1"]


def save_steps(folder: str, *steps: int) -> None:
    """Checkpoints after these steps (the weights do not matter)."""
    engine = runs.start(runs.tiny_config(*TOKENS, "checkpoint.keep_last=9"))
    for step in steps:
        checkpoint.save(engine, Path(folder), step, {})


def load(folder: str) -> int | None:
    """The step that a new engine continues from."""
    manifest = checkpoint.load_newest(runs.start(runs.tiny_config(*TOKENS)), Path(folder))
    return manifest["step"] if manifest else None


def save_on_a_full_disk(folder: str) -> None:
    """Rank 1 can write no file of more than a kilobyte."""
    engine = runs.start(runs.tiny_config(*TOKENS))
    if engine.world.rank == 1:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1024, resource.RLIM_INFINITY))
    checkpoint.save(engine, Path(folder), 20, {})


def test_a_rank_that_cannot_write_says_so_and_nothing_is_lost(ranks: Callable, tmp_path: Path) -> None:
    ranks(2, save_steps, str(tmp_path), 10)
    with pytest.raises(AssertionError, match=r"rank 1 could not write .*earlier checkpoints are untouched"):
        ranks(2, save_on_a_full_disk, str(tmp_path))
    assert ranks(2, load, str(tmp_path)) == [10, 10]


def test_no_checkpoint_is_a_first_start(ranks: Callable, tmp_path: Path) -> None:
    assert ranks(2, load, str(tmp_path / "checkpoints")) == [None, None]


def test_damage_falls_back_and_total_damage_is_an_error(ranks: Callable, tmp_path: Path) -> None:
    ranks(2, save_steps, str(tmp_path), 10, 20)
    (checkpoint_files.step_folder(tmp_path, 20) / checkpoint.HEADS).write_bytes(b"not what was written")
    assert ranks(2, load, str(tmp_path)) == [10, 10]
    (checkpoint_files.step_folder(tmp_path, 10) / checkpoint_files.MANIFEST).unlink()
    assert all("no usable checkpoint" in message for message in ranks(2, runs.refusal, load, str(tmp_path)))


def test_checkpoints_that_vanished_are_not_a_first_start(ranks: Callable, tmp_path: Path) -> None:
    ranks(2, save_steps, str(tmp_path), 10)
    shutil.rmtree(checkpoint_files.step_folder(tmp_path, 10))
    assert all("names one that is gone" in message for message in ranks(2, runs.refusal, load, str(tmp_path)))
