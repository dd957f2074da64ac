"""Data as people have it: the real command line trains on each, or refuses it with the right message."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from mmpretrain.data.index import build_index
from mmpretrain.data.split import holds_shards
from mmpretrain.run_folder import RunFolder, State
from tests.data.own_data import CASES, SMALL
from tests.small_runs import ROOT

# One that trains and one that is refused stand for all where time is short.
USUAL = ("img2dataset", "missing_captions")
NAMES = [pytest.param(name, marks=() if name in USUAL else pytest.mark.slow) for name in CASES]


@pytest.mark.processes
@pytest.mark.parametrize("name", NAMES)
def test_a_folder_trains_or_is_refused(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    case.make(tmp_path / name)
    for folder in (tmp_path / name, tmp_path / name / "train", tmp_path / name / "test"):
        if holds_shards(str(folder)):
            build_index(folder)
    command = [sys.executable, str(ROOT / "launcher" / "submit.py"), "--cluster=local", "--gpus-per-node=1"]
    tokens = [f"data.path={name}", "run.name=run", *SMALL, *case.tokens]
    done = subprocess.run([*command, *tokens], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    said = " ".join((done.stdout + done.stderr).split())
    if case.problem is not None:
        assert done.returncode != 0 and case.problem in said, said
        assert not (tmp_path / "runs").exists()
        return
    assert done.returncode == 0, said
    run = RunFolder(tmp_path / "runs" / "run")
    assert run.status()["state"] == State.completed.value and (run.release / "model.safetensors").exists()
    assert all(note in said for note in case.notes), said
