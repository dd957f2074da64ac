"""``mmpretrain report``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from mmpretrain.cli import app
from tests.report.made_up import write_run


def start(*arguments: object) -> Result:
    """The command in this process."""
    return CliRunner().invoke(app, ["report", *map(str, arguments)])


def test_the_page_lies_in_the_runs_folder(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "a", "scores")
    (folder / "embeddings_map.json").write_text("[]")
    outcome = start(folder, "--json", "--title", "My run")
    result = json.loads(outcome.stdout)
    text = (folder / "report.html").read_text(encoding="utf-8")
    assert result["page"] == str(folder / "report.html") and result["bytes"] == len(text.encode())
    assert "<title>My run</title>" in text and "embeddings_map.json" in result["notes"][0]


def test_a_run_is_found_by_its_name_and_several_make_a_page_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_run(tmp_path / "runs" / "a")
    write_run(tmp_path / "runs" / "b")
    outcome = start("a", "runs/b", "runs/a")
    assert outcome.exit_code == 0 and outcome.stdout.startswith("report.html: 2 runs, ")
    assert start("a", "--out", "deep/er/page.html").exit_code == 0 and Path("deep/er/page.html").is_file()


def test_a_page_that_cannot_be_written_there_is_told_to_go_elsewhere(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "a")
    (folder / "report.html").mkdir()
    (folder / "report.html" / "report.html").mkdir()
    outcome = start(folder)
    assert outcome.exit_code == 1 and "cannot be written" in outcome.stderr and "--out" in outcome.stderr


def test_what_is_no_run_is_named_with_the_fix(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "runs" / "a", "release")
    (tmp_path / "empty").mkdir()
    outcome = start(folder / "release", tmp_path / "runs", tmp_path / "empty", tmp_path / "none")
    said = outcome.stderr.splitlines()
    assert outcome.exit_code == 1 and len(said) == 4
    assert f"mmpretrain report {folder}" in said[0] and "mmpretrain information" in said[0]
    assert "holds runs" in said[1] and "is no run folder" in said[2] and "no such folder" in said[3]
