"""Reading run folders: what is missing or damaged does not stop the page."""

from __future__ import annotations

import json
import os
import time
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmpretrain.report.overview import checkpoints_words, facts, state_words
from mmpretrain.report.record import is_run, read_record, unique_names
from mmpretrain.run_folder import State
from tests.report.made_up import write_run


def test_an_empty_folder_is_no_run_and_a_run_that_never_began_is_one(tmp_path: Path) -> None:
    assert not is_run(tmp_path)
    (tmp_path / "plan.json").write_text(json.dumps({"config": {"seed": 3}, "notes": ["model: 5 parameters"]}))
    record = read_record(tmp_path, "a")
    assert is_run(tmp_path) and record.setting("seed") == 3 and record.state == "state unknown" and not record.notes


def test_damaged_files_are_left_out_and_named(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "a", "scores", "grid", "map")
    for name in ("config.yaml", "plan.json", "status.json", "evaluation.json", "embeddings_map.json"):
        (folder / name).write_text("{ not: [whole")
    (folder / "retrieval_grid.npz").write_bytes(b"PK no archive")
    record = read_record(folder, "a")
    assert len(record.notes) == 6 and all("left out" in note for note in record.notes)
    assert record.columns and not record.scores and record.grid is None


def test_a_grid_whose_bytes_have_changed_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_run(tmp_path / "a", "grid")

    def load(path: Path) -> None:
        raise zlib.error("invalid block type")

    monkeypatch.setattr("mmpretrain.report.record.load_grid", load)
    assert read_record(folder, "a").notes == ["retrieval_grid.npz cannot be read and is left out: invalid block type"]


def test_pickles_in_a_grid_are_not_opened(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "a")
    arrays: dict[str, Any] = {"pair/0/modalities": np.array([{"a": 1}], dtype=object)}
    np.savez(folder / "retrieval_grid.npz", **arrays)
    record = read_record(folder, "a")
    assert record.grid is None and "retrieval_grid.npz" in record.notes[0]


def test_a_running_run_that_wrote_nothing_for_long_is_called_silent(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "a", state=State.running)
    assert state_words(read_record(folder, "a")) == "running"
    for name in ("metrics.jsonl", "status.json"):
        os.utime(folder / name, (time.time() - 7200, time.time() - 7200))
    assert state_words(read_record(folder, "a")) == "running, but silent for 2 h 0 min"


def test_jobs_checkpoints_and_bad_samples_are_counted(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "a", "logs")
    for step in (40, 8):
        (folder / "checkpoints" / f"step-{step:08d}").mkdir(parents=True)
    bad = [{"position": n, "key": f"k{n}", "error": f"'k{n}' is no image (byte {n})"} for n in range(3)]
    (folder / "quarantine.jsonl").write_text("\n".join(map(json.dumps, bad)) + '\n{"half')
    (folder / "logs" / "12_1_log.out").write_text((folder / "logs" / "12_0_log.out").read_text())
    record = read_record(folder, "a")
    assert [(attempt.job, attempt.ranks) for attempt in record.attempts] == [("11", 1), ("12", 2)]
    assert checkpoints_words(record) == "step 40, 8" and record.quarantine == {"… is no image (byte …)": 3}


def test_runs_of_one_name_are_told_apart() -> None:
    assert unique_names([Path("/x/a"), Path("/x/b")]) == ["a", "b"]
    assert unique_names([Path("/x/a"), Path("/y/a")]) == ["x/a", "y/a"]
    assert unique_names([Path("/1/x/a"), Path("/2/x/a")]) == ["x/a (1)", "x/a (2)"]


def test_facts_are_those_that_some_run_has(tmp_path: Path) -> None:
    records = [read_record(write_run(tmp_path / name, seed=1), name) for name in ("a", "b")]
    rows = {fact.name: fact.values for fact in facts(records)}
    assert rows["Samples seen"] == ["160 (2 epochs)"] * 2 and rows["Waiting for data"][0] == "25% of the time"
    assert rows["Steps"][0] == "20 of 20" and "Released" not in rows
