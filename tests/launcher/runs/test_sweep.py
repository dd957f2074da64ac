"""``mmpretrain runs`` on a made-up sweep: its runs as one, and the best of them."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from typer.testing import CliRunner

from launcher.runs.cli import app
from launcher.sweeps.record import note_launcher
from tests.launcher.runs.test_reading import make_run


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    """Two completed runs of three, the second one better by its score and worse by its loss; one was never started."""
    folder = tmp_path / "lrs"
    runs = []
    for name, lr, score in (("low", "0.1", 0.5), ("high", "0.2", 0.75), ("none", "0.3", None)):
        runs.append({"name": name, "path": str(folder / name), "values": {"optim.lr": lr}})
        if score is None:
            continue
        made = make_run(folder / name, "completed")
        (made / "config.yaml").write_text(f"method:\n  name: clip\noptim:\n  lr: {lr}\nrun:\n  name: {name}\n")
        scores = {"retrieval/a->b/recall@1": score, "retrieval/a->b/median_rank": 10 * score}
        (made / "evaluation.json").write_text(json.dumps(scores))
    told = {"name": "lrs", "command": "mmpretrain train --sweep optim.lr=0.1,0.2,0.3", "directory": str(tmp_path)}
    (folder / "sweep.json").write_text(json.dumps({**told, "runs": runs}))
    return folder


def run(*words: str, code: int = 0) -> str:
    """What the command prints, on a wide terminal."""
    done = CliRunner(env={"COLUMNS": "200"}).invoke(app, list(words))
    assert done.exit_code == code, done.output
    return done.output


def test_the_runs_of_a_sweep_are_listed_with_those_that_have_not_begun(sweep: Path) -> None:
    make_run(sweep.parent / "other", "completed")
    root = str(sweep.parent)
    told = json.loads(run("list", "--root", root, "--sweep", "lrs", "--json"))
    assert sorted(row["name"] for row in told["runs"]) == ["lrs/high", "lrs/low"]
    assert told["sweep"]["runs"] == {"completed": 2} and told["sweep"]["not started"] == ["none"]
    text = run("show", "lrs", "--root", root)
    assert "2 completed" in text and "1: none" in text and f"runs resume {sweep}" in " ".join(text.split())
    assert "'other' is no folder of a sweep" in run("list", "--root", root, "--sweep", "other", code=1)


def test_the_best_run_by_a_score_comes_first(sweep: Path) -> None:
    told = json.loads(run("compare", str(sweep), "--json"))
    assert told["by"] == "retrieval/a->b/recall@1"
    assert [(row["path"], row["value"]) for row in told["runs"]] == [(f"{sweep}/high", 0.75), (f"{sweep}/low", 0.5)]
    assert told["runs"][0]["config"] == {"optim.lr": "0.2"}
    told = json.loads(run("compare", str(sweep), "--by", "median", "--json"))
    assert [row["value"] for row in told["runs"]] == [5.0, 7.5], "of ranks the lowest is the best"
    text = run("compare", str(sweep), "--by", "loss")
    assert text.startswith("2 runs, the best loss first") and "optim.lr" in text
    assert "--by retrieval may be" in run("compare", str(sweep), "--by", "retrieval", code=1)
    assert "no run has this score" in run("compare", str(sweep), "--by", "recall@10", code=1)


def test_a_sweep_is_resumed_by_its_command_and_cancelled_through_what_runs_it(
    sweep: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = run("resume", str(sweep), "--show", "--at-once", "2").splitlines()[-1]
    assert shown == f"cd {sweep.parent} && mmpretrain train --sweep optim.lr=0.1,0.2,0.3 --at-once 2"
    assert "is in the queue or running" in run("cancel", str(sweep), code=1)
    note_launcher(sweep, alive=True)
    sent: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "kill", lambda pid, number: sent.append((pid, int(number))))
    assert f"process {os.getpid()} starts no more runs" in run("cancel", str(sweep))
    assert sent == [(os.getpid(), 15)]
