"""The end of a run on the screen: scores with intervals and chance, the release, the next commands."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from rich.console import Console

from launcher.runs.ending import show_end
from mmpretrain.run_folder import RunFolder

SCORES = {
    "retrieval/a->b/median_rank": 3.0,
    "retrieval/a->b/recall@1": 0.5,
    "retrieval/a->b/recall@1/low": 0.4,
    "retrieval/a->b/recall@1/high": 0.625,
    "retrieval/a->b/recall@1/chance": 0.125,
    "alignment/strength": 0.25,
}


def end(folder: Path) -> str:
    """What is printed."""
    console = Console(width=200, record=True, force_terminal=False)
    show_end(RunFolder(folder), console)
    return console.export_text()


def test_scores_stand_with_interval_and_chance_and_the_rest_is_counted(tmp_path: Path) -> None:
    (tmp_path / "evaluation.json").write_text(json.dumps(SCORES))
    text = end(tmp_path)
    (line,) = [line for line in text.splitlines() if line.startswith("retrieval")]
    assert line.split("  ")[0] == "retrieval a -> b recall@1"
    assert [part for part in line.split("  ") if part][1:] == ["50.0 %", "40.0 % to 62.5 %", "12.5 %"]
    assert ["alignment", "strength", "0.250", "-", "-"] in [line.split() for line in text.splitlines()]
    assert "all 3 scores: mmpretrain runs show" in text
    assert f"release: {tmp_path / 'release'}" in text and f"mmpretrain report {tmp_path}" in text


@pytest.mark.parametrize("content", [None, "{", "[]"])
def test_without_scores_the_release_is_named_all_the_same(tmp_path: Path, content: str | None) -> None:
    if content:
        (tmp_path / "evaluation.json").write_text(content)
    text = end(tmp_path)
    assert "Final evaluation" not in text and "completed: " in text and "mmpretrain push" in text
