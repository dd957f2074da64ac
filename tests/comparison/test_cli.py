"""``mmpretrain evaluate`` as users start it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from mmpretrain.cli import app

QUICK = ("--metric", "retrieval", "--metric", "zero_shot", "--metric", "knn", "--set", "knn.k=3")


def start(*arguments: object) -> Result:
    """The command's end."""
    return CliRunner().invoke(app, ["evaluate", *map(str, arguments)])


def test_a_table_a_picture_and_all_numbers(models: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    arguments = (models / "own", models / "clip", "--data", models / "data", "--out", out, *QUICK)
    done = start(*arguments, "--pair", "picture,caption", "--template", "a {}", "--classes", "bold,light,seven")
    assert done.exit_code == 0, done.output
    assert "picture->caption" in done.output and "clip embeds picture by its tower image" in done.output
    assert sorted(path.name for path in out.iterdir()) == ["evaluate.json", "evaluate.png"]
    written = json.loads((out / "evaluate.json").read_text())
    assert written["settings"]["zero_shot"] == {"classes": ["bold", "light", "seven"], "templates": ["a {}"]}
    assert [model["name"] for model in written["models"]] == ["own", "clip"]


def test_json_is_what_the_file_holds(models: Path, tmp_path: Path) -> None:
    names = tmp_path / "names.txt"
    names.write_text("bold\nlight\n\nseven\n")
    arguments = (models / "clip", "--data", models / "data", "--out", tmp_path / "out", *QUICK, "--classes", names)
    answered = json.loads(start(*arguments, "--json").stdout)
    files = answered.pop("files")
    assert answered == json.loads(Path(files[0]).read_text()) and files[1].endswith("evaluate.png")
    assert answered["data"]["classes"] == ["bold", "light", "seven"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--metric", "rertieval"), "did you mean retrieval?"),
        (("--modalities", "picture=eye"), "unknown tower 'eye'"),
        (("--modalities", "smell"), "unknown modality 'smell'"),
        (("--metric", "factors"), "--metric factors cannot be measured of clip: it needs factors"),
        (("--classes", "classes.txt"), "there is no such file"),
        (("--ranks", "0"), "--ranks is 0"),
    ],
)
def test_errors_are_one_sentence(models: Path, tmp_path: Path, arguments: tuple[str, ...], message: str) -> None:
    done = start(models / "clip", "--data", models / "data", "--out", tmp_path / "out", *arguments)
    assert done.exit_code == 1 and message in done.output and not (tmp_path / "out").exists()
