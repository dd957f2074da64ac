"""What a word of the command line opens, and what is said of words that open nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmpretrain.comparison.sources import named_sources


def folder(path: Path, file: str = "model.safetensors") -> str:
    """A folder that looks like a model's."""
    path.mkdir(parents=True)
    (path / file).touch()
    return str(path)


def test_a_run_stands_for_its_release(tmp_path: Path) -> None:
    run = folder(tmp_path / "runs" / "demo", "config.yaml")
    assert "demo is a run without a release: wait" in named_sources([run])[1][0].replace(run, "demo")
    release = folder(tmp_path / "runs" / "demo" / "release")
    assert named_sources([run]) == ({"demo": release}, [])
    assert named_sources([release]) == ({"demo": release}, [])


def test_names_of_the_hub_are_taken_as_they_are() -> None:
    assert named_sources(["openai/clip"]) == ({"openai/clip": "openai/clip"}, [])


def test_models_of_one_name_go_by_what_was_typed(tmp_path: Path) -> None:
    first, second = folder(tmp_path / "a" / "clip"), folder(tmp_path / "b" / "clip")
    assert list(named_sources([first, second])[0]) == [first, second]
    assert "was named 2 times" in named_sources([first, first])[1][0]


@pytest.mark.parametrize(("made", "message"), [(None, "there is no such folder"), ("notes.txt", "no .safetensors")])
def test_a_folder_without_a_model(tmp_path: Path, made: str | None, message: str) -> None:
    word = str(tmp_path / "nothing")
    if made:
        folder(Path(word), made)
    assert message in named_sources([word])[1][0]


def test_a_checkpoint_of_a_run_goes_by_its_step(tmp_path: Path) -> None:
    run = folder(tmp_path / "runs" / "demo", "config.yaml")
    assert named_sources([f"{run}@400"]) == ({"demo@400": f"{run}@400"}, [])
    assert named_sources([f"{run}/@7"])[0] == {"demo@7": f"{run}/@7"}
    assert "there is no such folder" in named_sources([f"{run}@last"])[1][0]
