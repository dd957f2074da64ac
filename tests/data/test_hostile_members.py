"""Members that are broken or meant to do harm, from the index to the batch: replaced, never run, in bounded memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.data.hostile_members import bombs, code, jpegs, put, unusable
from tests.data.small_dataset import stream, write_split
from tests.data.test_hostile_shards import seen

GOOD = 12  # samples before the first bad one; from there on every second one is bad
SETTINGS: dict[str, Any] = {"global_batch": 12, "max_bad_fraction": 1.0}


def build(folder: Path) -> list[str]:
    """A data set that holds every one of them; returns what each should be called in the log."""
    bad = [*code(folder / "canary"), *bombs(), *jpegs(), *unusable()]

    def change(number: int, sample: dict[str, Any]) -> dict[str, Any]:
        at, odd = divmod(number - GOOD, 2)
        return put(sample, bad[at]) if at >= 0 and odd else sample

    write_split(folder / "train", (7, 30, 1, 40, GOOD + 2 * len(bad) - 78), change)
    return [f"s{GOOD + 2 * at + 1:04d}" for at in range(len(bad))]


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of such a data set."""
    path = tmp_path_factory.mktemp("hostile")
    build(path)
    return path


def logged(path: Path, log: Path, steps: int, **changes: Any) -> tuple[list[Any], list[dict[str, Any]]]:
    """What a run sees, and what it replaced."""
    rows = seen(path, steps, log=log, **SETTINGS, **changes)
    return rows, [json.loads(line) for line in log.read_text().splitlines()]


def test_each_is_replaced_by_a_good_one_and_none_is_run(tmp_path: Path) -> None:
    """Every sample of an epoch is either seen or in the log with one line that names the member."""
    keys = build(tmp_path)
    steps = -(-(GOOD + 2 * len(keys)) // 12)
    rows, log = logged(tmp_path, tmp_path / "log.jsonl", steps)
    assert {entry["key"] for entry in log} == set(keys)
    assert all("\n" not in entry["error"] and len(entry["error"]) < 1000 for entry in log)
    assert not set(keys) & {row[0] for row in rows} and len(rows) == 12 * steps
    assert not (tmp_path / "canary").exists()


@pytest.mark.parametrize(
    ("world_size", "workers"), [(2, 0), (3, 0), *(pytest.param(w, 2, marks=pytest.mark.processes) for w in (1, 2))]
)
def test_ranks_and_workers_replace_them_alike(hostile: Path, tmp_path: Path, world_size: int, workers: int) -> None:
    """The same substitutes at the same positions."""
    expected = seen(hostile, 9, **SETTINGS)
    assert seen(hostile, 9, world_size, workers=workers, **SETTINGS) == expected


@pytest.mark.processes
def test_all_of_them_fit_into_little_memory(hostile: Path) -> None:
    """The whole way in a process that may have 256 MB more than it has after a first batch of good ones."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    run = subprocess.run(
        [sys.executable, "-c", BOUNDED, str(hostile)], capture_output=True, text=True, timeout=300, env=environment
    )
    assert run.returncode == 0, run.stderr[-3000:]
    assert "MemoryError" not in run.stdout and not (hostile / "canary").exists()
    assert json.loads(run.stdout)["batches"] == 9


BOUNDED = """
import json, resource, sys
import numpy as np
from tests.data.small_dataset import stream

made = stream(sys.argv[1], global_batch=12, max_bad_fraction=1.0)
next(made.listed_batches([np.arange(4)]))
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (256 << 20),) * 2)
batches = list(made.batches(0, 9))
print(json.dumps({"batches": len(batches), "errors": [entry.error for b in batches for entry in b.replaced]}))
"""


def test_one_bad_sample_too_many_ends_the_run(hostile: Path) -> None:
    """Where none may be replaced, the first one is named."""
    from mmpretrain.data.quarantine import BadDataError

    with pytest.raises(BadDataError, match=r"^\d+ of "):
        list(stream(hostile, global_batch=12, max_bad_fraction=0).batches(0, 9))
