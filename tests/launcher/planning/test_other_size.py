"""A submission of a run's command with other ranks, at another stage or in another precision: what the plan says."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import pytest

from launcher.planning import checks
from launcher.planning.checks import check_batches
from launcher.planning.plan import RunPlan, make_plan
from launcher.planning.previous_run import read_history
from launcher.planning.resources import Cluster, Purpose, Request, Resources
from mmpretrain.config.compose import compose, save_config
from mmpretrain.config.root import Config
from mmpretrain.run_folder import RunFolder, State

NVME = "engine.deepspeed.zero_optimization.offload_optimizer.device=nvme"


def config(root: Path, *tokens: str) -> Config:
    """Of a run that 1, 2, 3 and 4 ranks can share."""
    return compose(["method=m3col", f"run.root={root}", "run.name=mine", "data.global_batch=24", *tokens])


def ended_run(root: Path, manifest: dict[str, Any], *tokens: str) -> RunFolder:
    """A run of two ranks that has ended, with a checkpoint at step 40."""
    folder, stored = RunFolder(root / "mine"), config(root, *tokens)
    checkpoint = folder.checkpoints / "step-00000040"
    checkpoint.mkdir(parents=True)
    (checkpoint / "MANIFEST.json").write_text(json.dumps(manifest))
    stored.method.bind(12)
    save_config(stored, folder.config)
    folder.plan.write_text(json.dumps({"world_size": 2, "cluster": "local", "host": socket.gethostname()}))
    folder.update_status(state=State.failed, job_id=None)
    return folder


WRITTEN: dict[str, dict[str, Any]] = {
    "as now": {"files": {}, "layout": {"ranks": 2, "zero": 1, "precision": "float32"}},
    "as before": {"files": {}, "world_size": 2, "config": {"engine": {"zero": 1, "precision": "float32"}}},
    "without both": {"files": {}},
}


@pytest.mark.parametrize("manifest", WRITTEN.values(), ids=list(WRITTEN))
def test_another_size_is_said(tmp_path: Path, manifest: dict[str, Any]) -> None:
    folder = ended_run(tmp_path, manifest)
    assert read_history(folder, config(tmp_path), 2).notes == ()
    found = read_history(folder, config(tmp_path, "engine.zero=3", "engine.precision=bfloat16"), 3)
    assert found.problems == () and found.step == 40
    changed, size = found.notes
    assert "engine.zero: 1 -> 3; engine.precision: float32 -> bfloat16" in changed
    assert size.startswith(
        "goes on after step 40, which 2 ranks at ZeRO 1 in float32 wrote, with 3 ranks at ZeRO 3 in b"
    )
    assert "equal up to rounding, not bit for bit; dropout draws other numbers; encoders compute in bfloat16" in size


def test_the_last_to_write_a_checkpoint_counts_and_not_the_last_to_start(tmp_path: Path) -> None:
    """A start with three ranks that ended before its first checkpoint."""
    folder = ended_run(tmp_path, WRITTEN["as now"])
    folder.plan.write_text(json.dumps({"world_size": 3, "cluster": "local", "host": socket.gethostname()}))
    assert read_history(folder, config(tmp_path), 2).notes == ()
    assert "which 2 ranks" in read_history(folder, config(tmp_path), 3).notes[0]


def test_state_that_only_its_writers_can_read_is_refused_before_the_start(tmp_path: Path) -> None:
    folder = ended_run(tmp_path, WRITTEN["as now"])
    (problem,) = read_history(folder, config(tmp_path, NVME), 2).problems
    assert "cannot go on with 2 ranks at ZeRO 1" in problem and NVME in problem


def test_a_loss_that_depends_on_the_number_of_ranks_keeps_it(tmp_path: Path) -> None:
    local = "objective.negatives=local"
    folder = ended_run(tmp_path, WRITTEN["as now"], local)
    (problem,) = read_history(folder, config(tmp_path, local), 3).problems
    assert "the loss would be another one; go on with 2 ranks" in problem
    assert read_history(folder, config(tmp_path, local, "engine.zero=3"), 2).problems == ()


def planned(root: Path, ranks: int) -> RunPlan:
    """The plan of the run's command on the CPUs of this machine."""
    tokens = ["method=m3col", f"run.root={root}", "run.name=mine", "data.global_batch=24"]
    return make_plan(tokens, Request(1, ranks, "local", Purpose.show), command="mmpretrain")


def test_what_was_bound_to_the_first_batch_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "check_model", lambda *_, **__: checks.Findings())
    ended_run(tmp_path, WRITTEN["as now"])
    assert vars(planned(tmp_path, 1).config.method)["mix_group"] == 12
    assert vars(planned(tmp_path, 2).config.method)["mix_group"] == 12


def test_ranks_that_do_not_fit_are_refused_with_those_that_do() -> None:
    bound = compose(["method=m3col", "method.mix_group=12", "data.global_batch=24"])
    (problem,) = check_batches(bound, Resources(Cluster.local, 1, 3, 0), bound=True)
    assert problem == (
        "method.mix_group=12 does not divide the local batch of 8 samples, and it stays as it was at the run's first"
        " start: this run goes on with 1, 2 ranks"
    )
