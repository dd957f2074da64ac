"""``mmpretrain finetune --sweep`` as people call it: two learning rates from one release, on this machine."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from mmpretrain.records import read_changes
from mmpretrain.run_folder import RunFolder, State
from tests.embedding.spaces import write_clip
from tests.launcher.finetuning.test_plan import write_data
from tests.small_runs import ROOT

SIZES = ("run.root=runs", "run.name=rates", "train.samples=16", "data.global_batch=8", "evaluation.best.patience=null")


def command(place: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """``mmpretrain`` in that folder."""
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); sys.argv = ['mmpretrain', *sys.argv[1:]]"
    code += "; from launcher.mmpretrain_command import whole_command; whole_command()(prog_name='mmpretrain')"
    return subprocess.run([sys.executable, "-c", code, *words], cwd=place, capture_output=True, text=True, timeout=600)


def swept(place: Path, model: str) -> subprocess.CompletedProcess[str]:
    """Two learning rates."""
    words = ("--cluster=local", "--gpus-per-node=1", "--sweep", "optim.lr=1e-4,1e-2")
    return command(place, "finetune", model, "--data=own", *words, *SIZES)


@pytest.mark.slow
@pytest.mark.processes
def test_each_value_is_a_run_of_its_own_from_the_same_start(tmp_path: Path) -> None:
    write_clip(tmp_path / "clip")
    write_data(tmp_path / "own", train=60)
    refused = swept(tmp_path, "clip")
    assert refused.returncode == 1 and "would be converted for each run of the sweep" in refused.stderr
    told = shlex.split(refused.stderr.split("`")[1])
    assert told[0] == "mmpretrain" and command(tmp_path, *told[1:]).returncode == 0

    done = swept(tmp_path, "releases/clip")
    assert done.returncode == 0, done.stdout + done.stderr
    record = json.loads((tmp_path / "runs" / "rates" / "sweep.json").read_text())
    runs = [RunFolder(Path(run["path"])) for run in record["runs"]]
    assert [run.status()["state"] for run in runs] == [State.completed.value] * 2
    weights = {(run.release / "model.safetensors").read_bytes() for run in runs}
    before = {row.score: row.before for row in read_changes(runs[0])}
    assert len(weights) == 2 and before == {row.score: row.before for row in read_changes(runs[1])}
    assert "complete already" in swept(tmp_path, "releases/clip").stdout
