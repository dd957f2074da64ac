"""The plan of a sweep: what is new, what is there already, and each problem once."""

from __future__ import annotations

import json
from collections.abc import Sequence
from copy import deepcopy
from functools import cache
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from launcher.launching.launch import prepare
from launcher.planning.checks import Findings
from launcher.planning.plan import Draft, PlanError
from launcher.planning.resources import Purpose, Request
from launcher.runs.sweep_folder import not_started, run_folders
from launcher.slurm import client as slurm_client
from launcher.sweeps import making as sweep_making
from launcher.sweeps.making import make_sweep
from launcher.sweeps.plan import Composed, Fate, SweepPlan
from launcher.sweeps.record import write_record
from launcher.sweeps.render import show_sweep, sweep_as_json
from launcher.sweeps.values import wanted
from mmpretrain.config.compose import ConfigError, compose
from mmpretrain.config.root import Config
from mmpretrain.run_folder import RunFolder, State

DIGITS = ["experiment=digits", "method=clip"]

SAVED = {"files": 2**21, "first": 2**20, "other": 2**20, "release": 2**20}
FORETOLD = {"memory": None, "wire": None, "checkpoint": SAVED}


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a folder of its own, where no model is built."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sweep_making, "check_models", checked)
    monkeypatch.setattr(slurm_client, "responds", lambda: False)


def checked(drafts: Sequence[Draft], purpose: Purpose) -> list[Findings]:
    """Every model is right, and one is too wide."""
    wide = Findings(problems=("model.embed_dim=999 is odd",))
    plain, largest = Findings(notes=("a model",)), Findings(notes=("a model",), prediction=FORETOLD)
    found = {999: wide, 512: largest}
    return [found.get(draft.config.model.embed_dim or 0, plain) for draft in drafts]


def composed(tokens: Sequence[str], _: Path | None) -> Composed:
    """As ``train`` composes."""
    try:
        return Composed(deepcopy(config_of(tuple(tokens))))
    except ConfigError as error:
        raise PlanError(error.problems) from error


@cache
def config_of(tokens: tuple[str, ...]) -> Config:
    """Composed once for all tests."""
    return compose(tokens)


def plan(*tokens: str, cluster: str = "local") -> SweepPlan:
    """The plan of a dry run on two local ranks."""
    asked = wanted([*DIGITS, *tokens], None, several=True)
    request = Request(1, 2, cluster, Purpose.show)
    return make_sweep(asked, request, composed, ["mmpretrain", "train", "--sweep", "--at-once", "2", *asked.typed])


def started(sweep: SweepPlan, **states: State) -> None:
    """As if its runs had been started; by name (- as _): their states."""
    write_record(sweep)
    for run in sweep.starting:
        prepare(run, lambda folder: folder)
        state = states.get(run.run_folder.name.replace("-", "_").replace(".", "_"))
        if state is not None:
            RunFolder(run.run_folder).update_status(state=state)


@pytest.mark.parametrize("widths", ["512", "64,512"])
def test_what_the_largest_run_needs_is_foretold_with_its_name(widths: str) -> None:
    said, found = StringIO(), plan("seed=0,1", f"model.embed_dim={widths}")
    show_sweep(found, Console(file=said, width=1000, force_terminal=True), whole=False)
    largest = [run.run_folder.name for run in found.starting if run.prediction is not None]
    assert len(largest) == 2 and len(found.starting) == 2 * len(widths.split(","))
    whose = "" if widths == "512" else f" ({largest[0]}, the largest model)"
    assert f"checkpoint 2 MiB, about 0.0021 s to write at 1000 MB/s per node{whose}\n" in said.getvalue()


def test_each_run_has_its_folder_and_the_command_that_starts_it_alone(tmp_path: Path) -> None:
    found = plan("optim.lr=1e-3,3e-4")
    assert found.folder == tmp_path / "runs" / "clip-digits-sweep"
    assert [run.run_folder.name for run in found.starting] == ["clip-digits-lr0.001", "clip-digits-lr0.0003"]
    place = f"run.root={found.folder} run.name=clip-digits-lr0.001"
    assert found.starting[0].command == f"mmpretrain train experiment=digits method=clip optim.lr=1e-3 {place}"
    assert [run.config.optim.lr for run in found.starting] == [0.001, 0.0003]
    assert "a model" in found.notes, "what all runs share is said once"


def test_the_same_settings_twice_are_one_run() -> None:
    found = plan("optim.lr=1e-3,0.001,3e-4", "seed=0")
    assert [element.fate for element in found.elements] == [Fate.start, Fate.double, Fate.start]
    assert found.elements[1].why == "the same settings as clip-digits-lr0.001"
    assert found.elements[1].folder == found.elements[0].folder and len(found.starting) == 2


def test_the_same_command_starts_what_is_not_complete_whatever_it_is_called() -> None:
    started(plan("optim.lr=1e-3,3e-4"), clip_digits_lr0_001=State.completed, clip_digits_lr0_0003=State.failed)
    again = plan("optim.lr=1e-3,3e-4")
    assert [element.fate for element in again.elements] == [Fate.complete, Fate.start]
    wider = plan("optim.lr=1e-3,3e-4", "seed=0,1")
    assert [(element.name, element.fate) for element in wider.elements] == [
        ("clip-digits-lr0.001-seed0", Fate.complete),
        ("clip-digits-lr0.001-seed1", Fate.start),
        ("clip-digits-lr0.0003", Fate.start),
        ("clip-digits-lr0.0003-seed1", Fate.start),
    ]
    assert wider.elements[0].why == f"{again.elements[0].folder} has the same settings"
    write_record(wider)
    assert [path.name for path in run_folders(wider.folder)] == ["clip-digits-lr0.001", "clip-digits-lr0.0003"]
    assert not_started(wider.folder) == ["clip-digits-lr0.001-seed1", "clip-digits-lr0.0003-seed1"]


def test_a_complete_run_elsewhere_is_not_run_again_and_one_that_stopped_is_named() -> None:
    started(plan("optim.lr=1e-3,3e-4"), clip_digits_lr0_001=State.completed, clip_digits_lr0_0003=State.failed)
    other = plan("optim.lr=1e-3,3e-4,2e-4", "run.name=other")
    assert [element.fate for element in other.elements] == [Fate.complete, Fate.start, Fate.start]
    assert other.elements[0].folder.name == "clip-digits-lr0.001"
    assert any("stopped after 0 steps: other-lr0.0003 starts anew beside it" in note for note in other.notes)


def test_other_settings_under_the_same_name_are_refused() -> None:
    sweep = plan("optim.lr=1e-3,3e-4")
    started(sweep, clip_digits_lr0_001=State.completed, clip_digits_lr0_0003=State.completed)
    for run in sweep.starting:
        (run.run_folder / "release").mkdir()
    with pytest.raises(PlanError) as caught:
        plan("optim.lr=1e-3,3e-4", "seed=7")
    assert len(caught.value.problems) == 1 and "(all 2 runs)" in caught.value.problems[0]
    assert "was started with another config (seed: 0 -> 7)" in caught.value.problems[0]
    assert "run.name=clip-digits-sweep-2" in caught.value.problems[0]


def test_problems_of_many_runs_are_told_once_with_whose_they_are() -> None:
    with pytest.raises(PlanError) as caught:
        plan("optim.lr=1e-3,oops", "seed=0..1", "data.global_batch=127")
    assert len(caught.value.problems) == 1, "before a config is whole nothing else is looked at"
    assert "oops" in caught.value.problems[0] and "(2 of 4 runs: " in caught.value.problems[0]
    with pytest.raises(PlanError) as caught:
        plan("optim.lr=1e-3,3e-4", "data.global_batch=128,127")
    assert "cannot be shared equally" in caught.value.problems[0] and "(2 of 4 runs: " in caught.value.problems[0]
    with pytest.raises(PlanError, match=r"embed_dim=999 is odd \(clip-digits-embed_dim999\)"):
        plan("model.embed_dim=64,999")


def test_a_sweep_takes_neither_the_folder_of_a_run_nor_a_root_of_each_run(tmp_path: Path) -> None:
    (tmp_path / "runs" / "mine").mkdir(parents=True)
    (tmp_path / "runs" / "mine" / "config.yaml").touch()
    with pytest.raises(PlanError, match="is the folder of a run: give the sweep another name"):
        plan("seed=0,1", "run.name=mine")
    with pytest.raises(PlanError, match="is the place of the whole sweep"):
        plan("run.root=a,b")


def test_a_dry_run_as_json_has_every_run_and_the_script_of_the_array() -> None:
    told = json.loads(sweep_as_json(plan("seed=0,1", cluster="slurm")))
    assert [run["values"] for run in told["runs"]] == [{"seed": 0}, {"seed": 1}]
    assert told["runs"][0]["fate"] == "start" and told["plan"]["config"]["seed"] == 0
    assert "#SBATCH --array=0-1%2" in told["sbatch"] and "/%a/logs/%A_%a_0_log.out" in told["sbatch"]
    assert 'SLURM_ARRAY_TASK_ID" _mark' in told["sbatch"]
