"""The check before training, on living ranks."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from mmpretrain.config.compose import compose
from mmpretrain.endings import Ending, ending_of
from mmpretrain.run_folder import RunFolder
from mmpretrain.training import devices, health, health_check
from mmpretrain.training.attempt import ATTEMPT
from mmpretrain.training.health_verdict import HealthError, WrongDeviceError
from tests.rank_pool import Ranks


def check(folder: str, broken: int | None = None, hung: int | None = None, *tokens: str) -> tuple[str, float]:
    """What this rank raises, and seconds. broken: a rank that multiplies wrongly; hung: one that stops for a while."""
    rank, config = int(os.environ["RANK"]), compose(list(tokens))
    began = time.monotonic()
    with pytest.MonkeyPatch.context() as patch:
        if rank == broken:
            patch.setattr(devices, "computes_right", lambda _: False)
        if rank == hung:
            patch.setattr(health_check, "meet_all", lambda *_: time.sleep(4))
        patch.setattr(health_check, "LATE_S", 1.0)
        try:
            health.start(RunFolder(Path(folder)), config)
        except HealthError as error:
            assert ending_of(error) is Ending.unhealthy
            return str(error), time.monotonic() - began
    return "", time.monotonic() - began


def test_two_healthy_ranks_are_looked_at_within_a_moment(ranks: Ranks, tmp_path: Path) -> None:
    found = ranks(2, check, str(tmp_path))
    assert [said for said, _ in found] == ["", ""] and max(seconds for _, seconds in found) < 2
    seen = RunFolder(tmp_path).status()["health"]
    assert seen["ranks"] == 2 and seen["devices"] == ["CPU"] and len(seen["nodes"]) == 1
    assert 0 < seen["mb_per_s"]["min"] <= seen["mb_per_s"]["median"]


def test_all_ranks_say_which_one_is_broken(ranks: Ranks, tmp_path: Path) -> None:
    (first, _), (second, _) = ranks(2, check, str(tmp_path), 1)
    assert first == second and "rank 1 on " in first and "its CPU multiplies wrongly" in first


def test_it_can_be_turned_off(ranks: Ranks, tmp_path: Path) -> None:
    assert [said for said, _ in ranks(2, check, str(tmp_path), 1, None, "health.enabled=false")] == ["", ""]
    assert not RunFolder(tmp_path).status()


@pytest.mark.slow
@pytest.mark.processes
def test_a_rank_that_hangs_is_named_within_the_limit(tmp_path: Path) -> None:
    """In a pool of its own: its group is out of step afterwards."""
    from tests.rank_pool import RankPool

    with RankPool(2) as pool:
        (first, seconds), _ = pool.run(check, (str(tmp_path), None, 1, "health.limit_s=1"), 60)
    assert "rank 1 on " in first and "did not finish the exchange of data within 1 s" in first and seconds < 10


def draws(folder: str) -> tuple[Any, Any]:
    """A random number after a check, and without one."""
    found = []
    for enabled in ("true", "false"):
        torch.manual_seed(7)
        health.start(RunFolder(Path(folder)), compose([f"health.enabled={enabled}"]))
        found.append(torch.rand(1).item())
    return found[0], found[1]


def test_it_leaves_random_numbers_alone(ranks: Ranks, tmp_path: Path) -> None:
    assert all(with_check == without for with_check, without in ranks(2, draws, str(tmp_path)))


def test_planned_gpus_that_are_not_seen_are_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """They would train on CPUs, and nothing would show it but the time."""
    for name, value in {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", ATTEMPT: "7-0"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("DS_ACCELERATOR", raising=False)
    with pytest.raises(WrongDeviceError, match=r"rank 0 on .* sees 0 GPUs"):
        health.start(RunFolder(tmp_path), compose([]))
