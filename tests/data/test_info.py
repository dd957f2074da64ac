"""dataset.json round trip and its faults."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from mmpretrain.data.index import ShardError
from mmpretrain.data.info import DatasetInfo, load_info

INFO = DatasetInfo(
    "toy",
    "Töy",
    "made up",
    "CC0",
    {"mrna": {"kind": "vector", "size": [2]}},
    classes=["a", "b"],
    factors={"shape": 3, "synergy": 2},
    statistics={"mrna": {"minimum": [0.1, -1.0], "maximum": [1.0, 3.3]}},
)


def test_round_trip(tmp_path: Path) -> None:
    """What was written comes back, with keys of later versions ignored."""
    (tmp_path / "dataset.json").write_text(INFO.to_json())
    assert load_info(tmp_path) == INFO
    (tmp_path / "dataset.json").write_text(INFO.to_json().replace("{", '{"later": 1,', 1))
    assert load_info(tmp_path) == INFO


def test_provenance_is_in_the_file_only_where_there_is_some(tmp_path: Path) -> None:
    """Data sets that were built before it existed keep their bytes."""
    assert "provenance" not in INFO.to_json()
    made = replace(INFO, provenance={"release": "one"})
    (tmp_path / "dataset.json").write_text(made.to_json())
    assert load_info(tmp_path) == made


@pytest.mark.parametrize("text", ["", "[]", '{"name": "x"}', "{"])
def test_damage(tmp_path: Path, text: str) -> None:
    """Anything else is refused with the path."""
    (tmp_path / "dataset.json").write_text(text)
    with pytest.raises(ShardError, match=r"dataset\.json is damaged"):
        load_info(tmp_path)


def test_missing(tmp_path: Path) -> None:
    """No file is told apart from a damaged one."""
    with pytest.raises(FileNotFoundError):
        load_info(tmp_path)
