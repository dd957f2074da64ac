"""`mmpretrain shards preview` as a user calls it."""

from __future__ import annotations

import json
from pathlib import Path

from typer.testing import CliRunner, Result

from mmpretrain.cli import app


def run(*arguments: object) -> Result:
    """One call of ``mmpretrain shards preview``."""
    return CliRunner().invoke(app, ["shards", "preview", *map(str, arguments)], env={"COLUMNS": "200"})


def test_the_page_and_its_numbers(digits: Path, tmp_path: Path) -> None:
    """The composed config of training by default, and keys after the folder."""
    out = tmp_path / "pages" / "digits.html"
    tokens = (f"model.encoders.caption.tokenizer={digits}/tokenizer", "data.modalities.caption.max_length=5")
    done = run(digits, *tokens, "--samples", 3, "--scan", 50, "--out", out, "--json")
    numbers = json.loads(done.stdout)
    assert numbers["page"] == str(out) and not numbers["problems"] and len(numbers["samples"]["keys"]) == 3
    tokens_of = numbers["splits"]["train"]["modalities"]["caption"]["tokens"]
    assert tokens_of["limit"] == 5 and 0 < tokens_of["above"] <= 50
    assert out.read_text().count('<article class="card sample">') == 3


def test_the_answer_says_what_is_dropped(photos: Path, tmp_path: Path) -> None:
    done = run(photos, "--data", "photos", "--config-dir", photos.parent / "configs", "--out", tmp_path / "p.html")
    assert done.exit_code == 0, done.output
    assert "train: 10 of 12 samples that were read can be used" in done.stdout
    assert "  1 cannot: caption.txt: the text is empty" in done.stdout


def test_sources_that_are_not_shown_are_said(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "p.html"
    tokens = ("data.sources.more.path=elsewhere", "--data", "photos")
    done = run(photos, *tokens, "--config-dir", photos.parent / "configs", "--out", out)
    assert f"note: of data.sources nothing is shown: this is {photos} alone" in done.stdout, done.output


def test_errors_are_messages(tmp_path: Path, photos: Path) -> None:
    out = tmp_path / "p.html"
    missing = run(tmp_path / "none", "--out", out)
    assert missing.exit_code == 1 and missing.stderr.startswith("error: ") and not out.exists()
    unknown = run(photos, "optim.lrr=1", "--out", out)
    assert unknown.exit_code == 1 and "optim.lrr" in unknown.stderr and "Traceback" not in unknown.stderr


def test_help_has_examples() -> None:
    assert "mmpretrain shards preview data/photos data=photos" in run("--help").stdout
