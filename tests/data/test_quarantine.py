"""The budget for bad samples, and their log."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from mmpretrain.data.batch import Replacement
from mmpretrain.data.quarantine import GRACE, BadDataError, Quarantine


def bad(position: int) -> Replacement:
    """A sample that could not be decoded, at this position."""
    return Replacement(position, f"s{position}", "s0", "train/shard-000000.tar", "photo.jpg: truncated")


def test_each_replacement_is_one_line(tmp_path: Path) -> None:
    log = tmp_path / "quarantine.jsonl"
    ranks = [Quarantine(log, 1.0) for _ in range(2)]
    for position in range(4):
        ranks[position % 2].record(8, [bad(position), bad(position + 10)])
    expected = [
        {k: v for k, v in asdict(bad(p)).items() if k != "source"}
        for position in range(4)
        for p in (position, position + 10)
    ]
    assert [json.loads(line) for line in log.read_text().splitlines()] == expected


def test_no_file_without_bad_samples(tmp_path: Path) -> None:
    Quarantine(tmp_path / "quarantine.jsonl", 0.0).record(100, [])
    assert not list(tmp_path.iterdir())


def test_the_budget_is_a_share_of_what_was_seen(tmp_path: Path) -> None:
    quarantine = Quarantine(None, 0.01)
    quarantine.record(3000, [bad(p) for p in range(30)])
    with pytest.raises(BadDataError, match=r"31 of 3001 samples .*0\.01 .*'s30' in train/shard.*truncated; no log"):
        quarantine.record(1, [bad(30)])


def test_a_few_bad_samples_at_the_start_are_no_reason_to_stop() -> None:
    quarantine = Quarantine(None, 0.01)
    quarantine.record(20, [bad(p) for p in range(GRACE // 100)])
    with pytest.raises(BadDataError, match="11 of 21 samples"):
        quarantine.record(1, [bad(11)])


def test_without_a_budget_the_first_bad_sample_ends_the_run(tmp_path: Path) -> None:
    with pytest.raises(BadDataError, match=rf"all are listed in {tmp_path}/log"):
        Quarantine(tmp_path / "log", 0.0).record(8, [bad(0)])
