"""The prediction in a plan: what is said of memory, the time to save and the disk, and what does not suffice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from launcher.planning.predicted import (
    GIB,
    device_words,
    disk_bytes,
    prediction_lines,
    prediction_notes,
    seconds_to_save,
)
from launcher.planning.resources import Cluster, Resources
from launcher.slurm.profiles import Profile
from mmpretrain.config.compose import compose

SAVED = {"tensors": 9 * 10**9, "files": 10**10, "first": 6 * 10**9, "other": 2 * 10**9, "release": 10**9}
FORETOLD = {
    "memory": {"total": 5 * GIB, "weights": GIB, "masters": 0, "optimizer": 2 * GIB, "average": 0, "gradients": GIB}
    | {"gathered": 0, "activations": GIB, "inputs": 0, "loss": 0},
    "wire": {"sent": 2 * GIB},
    "checkpoint": SAVED,
}


def on_slurm(**profile: Any) -> Resources:
    """Two nodes of four ranks with GPUs."""
    return Resources(Cluster.slurm, 2, 4, 4, profile_name="mine", profile=Profile(**profile))


def test_lines_hold_every_part_that_is_there() -> None:
    lines = prediction_lines(FORETOLD, on_slurm(gpu_memory_gib=80))
    assert lines["memory"].startswith("5 GiB per rank at most (weights 1 GiB, optimizer 2 GiB, gradients 1 GiB,")
    assert lines["memory"].endswith("; a GPU has 80 GiB")
    assert lines["network"] == "each rank sends 2 GiB per step"
    assert prediction_lines(None, on_slurm()) == {}


@pytest.mark.parametrize(("rate", "seconds"), [(None, 12.0), (100, 120.0)])
def test_the_first_node_takes_longest_to_save(rate: int | None, seconds: float) -> None:
    resources = on_slurm() if rate is None else on_slurm(write_mb_per_s=rate)
    assert seconds_to_save(FORETOLD, resources) == seconds


def test_too_short_a_lead_and_too_small_a_disk_are_told(tmp_path: Path) -> None:
    config = compose([])
    small = FORETOLD | {"checkpoint": SAVED | {"files": 10, "release": 10}}
    assert prediction_notes(small, config, on_slurm(write_mb_per_s=1000), tmp_path) == []
    # 240 s each, or 80: the one being written is completed before the last one is begun.
    (lead,) = prediction_notes(small, config, on_slurm(write_mb_per_s=50), tmp_path)
    assert "takes about 240 s" in lead and "set signal_lead_s to 480 or more in the profile mine" in lead
    (lead,) = prediction_notes(small, config, on_slurm(write_mb_per_s=150), tmp_path)
    assert "up to two may have to be written" in lead and "set signal_lead_s to 160 or more" in lead
    at_once = compose(["checkpoint.background=false"])
    assert prediction_notes(small, at_once, on_slurm(write_mb_per_s=150), tmp_path) == []
    huge = FORETOLD | {"checkpoint": SAVED | {"files": 10**18}}
    assert "lower checkpoint.keep_last" in prediction_notes(huge, config, on_slurm(), tmp_path / "runs" / "new")[-1]


def test_checkpoints_that_are_there_take_no_further_room() -> None:
    config = compose(["checkpoint.keep_last=2", "checkpoint.keep_every=null"])
    kept = [disk_bytes(FORETOLD, config, there) - 2 * SAVED["release"] for there in (0, 2, 9)]
    assert kept == [3 * SAVED["files"], SAVED["files"], SAVED["files"]]


def test_the_preflight_hears_of_gpus_and_of_their_memory() -> None:
    assert device_words(on_slurm()) == ["gpu"]
    assert device_words(on_slurm(gpu_memory_gib=2)) == [f"gpu={2 * GIB}"]
    assert device_words(Resources(Cluster.slurm, 1, 2, 0)) == []
