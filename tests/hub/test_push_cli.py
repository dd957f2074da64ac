"""``mmpretrain push`` and ``mmpretrain export`` as commands: what they print, and their errors."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer
from huggingface_hub import HfApi
from typer.testing import CliRunner

from mmpretrain.hub import push
from mmpretrain.hub.push_cli import push_command
from mmpretrain.training.cli import export_command
from tests.hub.server import HubServer
from tests.hub.test_export import make_release
from tests.hub.test_push import TOKEN, hub

__all__ = ["hub"]  # a fixture


def run(command: object, *arguments: str) -> tuple[int, str]:
    """Exit code and what was printed."""
    app = typer.Typer()
    app.command()(command)  # type: ignore[type-var]
    done = CliRunner().invoke(app, list(arguments))
    return done.exit_code, done.stdout


def test_a_dry_run_lists_files_and_a_push_tells_what_it_did(
    hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(push, "HfApi", lambda: HfApi(endpoint=hub.url, token=TOKEN))
    make_release(tmp_path / "release")
    release = str(tmp_path / "release")
    code, text = run(push_command, release, "org/demo", "--dry-run")
    assert code == 0 and "a new repository" in text and "new  " in text and "model.safetensors" in text
    code, text = run(push_command, release, "org/demo", "--json")
    told = json.loads(text)
    assert code == 0 and told["committed"] and told["files"]["README.md"] > 0 and not told["deleted"]
    code, text = run(push_command, release, "org/demo")
    assert code == 0 and "holds this release already" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere", "org/demo"], "nowhere is no folder"),
        (["nowhere", "demo"], "write ORG/NAME"),
        (["nowhere", "org/demo", "--revision", "0" * 40], "is no branch"),
    ],
)
def test_errors_of_a_push_are_one_sentence(arguments: list[str], message: str) -> None:
    code, text = run(push_command, *arguments, "--json")
    (problem,) = json.loads(text)["errors"]
    assert code == 1 and message in problem


def test_errors_of_an_export_are_one_sentence(tmp_path: Path) -> None:
    for run_folder, to, message in [(tmp_path, tmp_path, "exists"), (tmp_path, tmp_path / "out", "is no run")]:
        code, text = run(export_command, str(run_folder), "--to", str(to), "--json")
        (problem,) = json.loads(text)["errors"]
        assert code == 1 and message in problem
