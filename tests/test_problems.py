"""How a folder that does not open is called: what is missing, and not what a client of the Hub says of its name."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmpretrain.problems import cannot_open, missing_folder

ERROR = OSError("Repo id must be in the form 'repo_name' or 'namespace/repo_name': use `repo_type`")


@pytest.mark.parametrize("source", ["/data/my/bert", "./bert", "runs/demo/release", "my folder", "../x"])
def test_a_missing_local_folder_is_called_so(source: str) -> None:
    (problem,) = cannot_open("model.encoders.caption.pretrained", source, ERROR).problems
    assert "there is no such folder" in problem and repr(source) in problem and "Repo id" not in problem


def test_what_may_be_an_id_keeps_what_the_hub_said() -> None:
    (problem,) = cannot_open("key", "some/bert", OSError("404")).problems
    assert "404" in problem and "check the id" in problem


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").touch()
    assert "name the folder" in (missing_folder(str(tmp_path / "model.safetensors")) or "")
    assert missing_folder(str(tmp_path)) is None
