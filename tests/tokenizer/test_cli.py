"""`mmpretrain tokenizer train` as a user calls it."""

from __future__ import annotations

import json
from pathlib import Path

from typer.testing import CliRunner, Result

from mmpretrain.cli import app
from mmpretrain.data.discovery import Discovery
from tests.data.small_dataset import write_split


def run(*arguments: object) -> Result:
    """One call of ``mmpretrain tokenizer train``."""
    return CliRunner().invoke(app, ["tokenizer", "train", *map(str, arguments)], env={"COLUMNS": "200"})


def test_the_answer_says_what_to_set(digits: Path, tmp_path: Path) -> None:
    """Vocabulary, lengths against the max_length of dataset.json, and the keys to use."""
    out = tmp_path / "words"
    done = run("--data", digits, "--size", 300, "--out", out, "--sample", 200)
    assert done.exit_code == 0, done.output
    assert f"{out} written: 300 tokens, from 200 texts of 200 samples" in done.stdout
    assert "have more than max_length=8 and would be cut" in done.stdout
    assert f"model.encoders.caption.tokenizer={out} data.modalities.caption.max_length=" in done.stdout
    again = json.loads(run("--data", digits, "--size", 300, "--out", out, "--sample", 200, "--json").stdout)
    assert again["outcome"] == "unchanged" and again["lengths"]["texts"] == 200 and again["modality"] == "caption"


def test_the_usual_place_is_where_a_run_looks(tmp_path: Path) -> None:
    """And texts that are nowhere are said."""
    write_split(tmp_path / "train", (4,))
    assert run("--data", tmp_path, "--size", 260).exit_code == 0
    assert Discovery().tokenizer([str(tmp_path)]) == str(tmp_path / "tokenizer")
    nothing = run("--data", tmp_path, "--modality", "x", "--member", "values.npy", "--out", tmp_path / "x")
    assert nothing.exit_code == 1 and "error: " in nothing.stderr and "Traceback" not in nothing.stderr


def test_errors_are_messages(digits: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    refused = run("--data", digits, "--out", tmp_path)
    assert refused.exit_code == 1 and refused.stderr.startswith("error: ") and "--force" in refused.stderr
    assert "there is no such folder" in run("--data", tmp_path / "none").stderr


def test_a_folder_of_texts_is_said_to_be_no_shards_yet(tmp_path: Path) -> None:
    (tmp_path / "metadata.csv").write_text("file_name,caption\n")
    refused = run("--data", tmp_path, "--modality", "caption")
    assert refused.exit_code == 1 and "make some: `mmpretrain shards build folder " in refused.stderr


def test_help_has_an_example() -> None:
    assert "Example: mmpretrain tokenizer train --data data/photos" in run("--help").stdout
