"""Commands, other schemes, braces and variables where a path is expected: refused, never run, never expanded."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from mmpretrain.config.compose import ConfigError, load_config
from mmpretrain.data.index import ShardError
from mmpretrain.data.split import look_at
from shards.cli import app
from tests.data.small_dataset import config, write_split

SPECS = [
    "pipe:touch {canary}",
    "pipe://touch {canary}",
    "file:{data}",
    "file://{data}",
    "local://{data}",
    "simplecache::file://{data}",
    "memory://a::file://{data}",
    "reference://{data}",
    "${{DATA}}",
    "$(touch {canary})",
    "{data}/{{0..999999999}}",
    "{data}::{data}",
]


@pytest.fixture
def canary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What must not appear; a data set lies beside it, and in variables."""
    write_split(tmp_path / "data/train", (2,))
    for name in ("DATA", "WDS_DATA", "WDS_PIPE"):
        monkeypatch.setenv(name, str(tmp_path / "data"))
    monkeypatch.setenv("GOPEN_VERBOSE", "0")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "canary"


def filled(spec: str, canary: Path) -> str:
    """The path that a test asks for."""
    return spec.format(canary=canary, data=canary.parent / "data")


@pytest.mark.parametrize("spec", SPECS)
def test_commands_refuse_them_at_once(spec: str, canary: Path, tmp_path: Path) -> None:
    """All that read shards."""
    path, start = filled(spec, canary), time.monotonic()
    for words in (["index", path], ["verify", path], ["inspect", path], ["merge", path, path, "new"]):
        result = CliRunner().invoke(app, words)
        assert result.exit_code == 1 and result.stderr.startswith("error: "), (words, result.output)
    assert time.monotonic() - start < 5
    assert {p.name for p in tmp_path.iterdir()} == {"data"}


@pytest.mark.parametrize("spec", SPECS)
def test_configs_refuse_them(spec: str, canary: Path) -> None:
    """As the path of a data set and as a further one."""
    path = filled(spec, canary)
    for changes in ({"path": path}, {"path": str(canary.parent / "data"), "more_paths": [path]}):
        with pytest.raises(ShardError):
            look_at(config(**changes), "train")
    assert not canary.exists()


@pytest.mark.parametrize("variable", ["${DATA}", "${WDS_DATA}", "${oc.env:DATA}"])
def test_files_of_configs_expand_no_variables(variable: str, canary: Path, tmp_path: Path) -> None:
    """Neither the shell's nor those of other libraries."""
    (tmp_path / "config.yaml").write_text(f"data:\n  path: {variable}\n")
    with pytest.raises(ConfigError, match=r"\$\{"):
        load_config(tmp_path / "config.yaml")
