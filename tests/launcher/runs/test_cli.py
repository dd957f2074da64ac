"""``mmpretrain runs`` on made-up folders: tables, JSON, and refusals."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from launcher.runs.cli import app
from tests.launcher.runs.test_reading import make_run

SCORES = {
    "retrieval/a->b/recall@1": 0.5,
    "retrieval/a->b/recall@1/low": 0.4,
    "retrieval/a->b/recall@1/high": 0.625,
    "retrieval/a->b/recall@1/chance": 0.125,
    "linear_probe/a/recall/one": 0.25,
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two finished runs with scores, one that failed, one that is damaged."""
    for name, lr in (("base", "0.1"), ("other", "0.2")):
        folder = make_run(tmp_path / name, "completed")
        (folder / "config.yaml").write_text(f"method:\n  name: clip\noptim:\n  lr: {lr}\nrun:\n  name: {name}\n")
        (folder / "evaluation.json").write_text(json.dumps(SCORES))
        (folder / "release").mkdir()
    make_run(tmp_path / "bad [x]", "failed", cause="rank 1: [bold]no[/bold] memory")
    (make_run(tmp_path / "worse") / "status.json").write_text("{")
    (tmp_path / "other" / "evaluation.json").write_text("{")
    return tmp_path


def run(*words: str, code: int = 0) -> str:
    """What the command prints, on a wide terminal."""
    done = CliRunner(env={"COLUMNS": "200"}).invoke(app, list(words))
    assert done.exit_code == code, done.output
    return done.output


def test_the_list_has_every_run_and_the_causes(root: Path) -> None:
    text = run("list", "--root", str(root), "--sort", "name")
    assert [line.split("  ")[0] for line in text.splitlines()[1:5]] == ["bad [x]", "base", "other", "worse"]
    words = " ".join(text.split())  # long paths are broken, and what surrounds them is cut in its middle
    assert "rank 1: [bold]no[/bold] memory" in words and "worse damaged" in words and "7.0000" in words
    assert "restore it, or delete it if no job of this run is alive" in words
    rows = json.loads(run("list", "--root", str(root), "--state", "failed", "--json"))["runs"]
    assert [(row["name"], row["state"], row["step"]) for row in rows] == [("bad [x]", "failed", 30)]


def test_one_run_is_shown_with_its_scores_and_the_next_commands(root: Path) -> None:
    text = run("show", "base", "--root", str(root))
    for said in ("50.0 %", "40.0 % to 62.5 %", "12.5 %", "mmpretrain evaluate", "mmpretrain report"):
        assert said in text
    assert "recall/one" not in text
    told = json.loads(run("show", "base", "--root", str(root), "--json"))
    assert told["scores"][0]["low"] == 0.4 and told["state"] == "completed"
    assert "mmpretrain runs resume" in run("show", "bad [x]", "--root", str(root))


def test_compared_runs_differ_in_one_setting(root: Path, tmp_path: Path) -> None:
    told = json.loads(run("compare", "base", "other", "--root", str(root), "--json"))
    assert told["config"] == {"optim.lr": ["0.1", "0.2"]}
    assert told["scores"] == {"retrieval/a->b/recall@1": [{"value": 0.5, "low": 0.4, "high": 0.625}, None]}
    text = run("compare", "base", "other", "--root", str(root), "--picture", str(tmp_path / "losses.png"))
    assert "optim.lr" in text and "50.0 % (40.0 % to 62.5 %)" in text and "█" in text
    assert (tmp_path / "losses.png").read_bytes().startswith(b"\x89PNG")
    assert "no comparison" in run("compare", "base", "--root", str(root), code=1)


def test_nothing_is_deleted_without_yes(root: Path) -> None:
    (root / "base" / "code").mkdir()
    assert "Would be deleted" in run("clean", "base", "--root", str(root))
    assert (root / "base" / "code").exists()
    told = json.loads(run("clean", "base", "--root", str(root), "--what", "code", "--yes", "--json"))
    assert told["deleted"] and [file["part"] for file in told["files"]] == ["code"]
    assert not (root / "base" / "code").exists() and (root / "base" / "release").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["resume", "base"], "is complete"),
        (["cancel", "bad [x]"], "is not running (failed)"),
        (["clean", "worse"], "may be in use"),
        (["show", "bas"], "did you mean base?"),
    ],
)
def test_refusals_name_the_run(root: Path, words: list[str], said: str) -> None:
    assert said in run(*words, "--root", str(root), code=1)


def test_a_missing_folder_of_runs_is_named(tmp_path: Path) -> None:
    assert "there is no such folder" in run("list", "--root", str(tmp_path / "no"), code=1)


def test_no_password_is_shown(tmp_path: Path) -> None:
    url = "s3://key:secret@bucket/photos"
    for name in ("a", "b"):
        words = {"command": f"mmpretrain train data.path={url}", "notes": [f"data.path: {url}/{name}"]}
        folder = make_run(tmp_path / name, "failed", plan=words, cause=f"{url}/{name} is gone")
        (folder / "config.yaml").write_text(f"data:\n  path: {url}/{name}\n")
    shown = [["list"], ["show", "a"], ["compare", "a", "b"]]
    text = "".join(run(*words, *form, "--root", str(tmp_path)) for words in shown for form in ([], ["--json"]))
    assert text.count("s3://***@bucket") >= 10 and "secret" not in text


def test_what_is_no_number_is_null_in_json(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "a", "failed")
    with (folder / "metrics.jsonl").open("a") as stream:
        stream.write('{"step": 31, "loss": NaN}\n')
    told = json.loads(run("list", "--root", str(tmp_path), "--json"), parse_constant=pytest.fail)
    assert told["runs"][0]["loss"] is None


def test_a_pipe_gets_one_line_for_each_run(tmp_path: Path) -> None:
    name = "a-long-name " * 10 + "<b>"
    make_run(tmp_path / name, "completed")
    done = CliRunner(env={"COLUMNS": None}).invoke(app, ["list", "--root", str(tmp_path)])
    assert done.output.splitlines()[1].startswith(f"{name}  completed")
