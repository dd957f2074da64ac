"""Columns open when a sample is asked for, a bounded number of them, and only those of the index."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import fsspec
import pytest

from mmpretrain.config.data import DataConfig, Incomplete, Kind, ModalityConfig
from mmpretrain.data.index import Index, ShardError, load_index
from mmpretrain.data.index_checks import check_split
from mmpretrain.data.index_store import ColumnStore
from mmpretrain.data.split import open_split
from tests.data.small_dataset import config, write_split
from tests.data.tars import keys_by_shard

SIZES = (5, 1, 4)


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The shards whose columns are opened from here on."""
    names: list[str] = []
    read = ColumnStore._read

    def noted(self: ColumnStore, shard: object, stored: object) -> object:
        names.append(shard.name)  # type: ignore[attr-defined]
        return read(self, shard, stored)  # type: ignore[arg-type]

    monkeypatch.setattr(ColumnStore, "_read", noted)
    return names


def maps(folder: Path) -> list[str]:
    """Files of a folder's columns that this process has mapped."""
    lines = Path("/proc/self/maps").read_text().splitlines()
    return [line.split()[-1] for line in lines if f"{folder}/columns/" in line]


def test_what_a_run_asks_at_its_start_opens_no_columns(tmp_path: Path, opened: list[str]) -> None:
    """Counts, faults and what is dropped come from the manifest; the first sample opens its own shard."""
    write_split(tmp_path / "train", SIZES, lambda n, s: {k: v for k, v in s.items() if n % 4 or k != "caption.txt"})
    data = config(tmp_path, incomplete=Incomplete.drop, classes=None)
    split = open_split(data, "train")
    assert len(split.index) == 7 and split.dropped == {"no caption": 3} and len(split.index.fingerprint) == 64
    assert check_split(data, "train").samples == 7 and split.index.count(["caption.txt"]) == 7
    assert opened == []
    assert split.index.sample(4).key == "s0006" and opened == ["shard-000002.tar"]
    assert keys_by_shard(split.index) == [["s0001", "s0002", "s0003"], ["s0005"], ["s0006", "s0007", "s0009"]]
    assert split.index.sample(3).shard.holds("caption").tolist() == [True]


def test_few_stay_mapped_and_are_hashed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index = write_split(tmp_path, SIZES)
    hashed: list[str] = []
    compare = ColumnStore._compare

    def noted(self: ColumnStore, data: Any, shard: Any, stored: Any) -> None:
        hashed.append(shard.name)
        compare(self, data, shard, stored)

    monkeypatch.setattr(ColumnStore, "_compare", noted)
    index.read_through(None, 2)
    for ordinal in (0, 5, 6, 0, 9):
        index.sample(ordinal)
    assert len(maps(tmp_path)) == 2 and hashed == [shard.name for shard in index.shards]
    copy: Index = pickle.loads(pickle.dumps(index))
    index.close()
    assert maps(tmp_path) == [] and copy.sample(9).key == "s0009"


@pytest.mark.parametrize("damage", ["missing", "longer", "flipped"])
@pytest.mark.parametrize("place", ["local", "remote"])
def test_columns_that_are_not_those_of_the_index_are_refused(tmp_path: Path, damage: str, place: str) -> None:
    index = write_split(tmp_path, SIZES)
    path = tmp_path / "columns" / "shard-000000.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.unlink() if damage == "missing" else path.write_bytes(content + b"x" * (damage == "longer"))
    if place == "remote":
        filesystem = fsspec.filesystem("memory")
        filesystem.put(str(tmp_path), "/columns-test", recursive=True)
        index = load_index("memory://columns-test")
        filesystem_paths = "/columns-test"
    try:
        with pytest.raises(
            ShardError, match=r"columns/shard-000000\.safetensors (cannot be|is missing|is damaged or out of date)"
        ):
            index.sample(0)
        assert index.sample(5).key == "s0005"
    finally:
        if place == "remote":
            filesystem.rm(filesystem_paths, recursive=True)


def test_a_check_before_the_run_names_missing_columns(tmp_path: Path) -> None:
    write_split(tmp_path / "train", SIZES)
    (tmp_path / "train" / "columns" / "shard-000001.safetensors").unlink()
    modalities = {"values": ModalityConfig(Kind.vector, [3]), "caption": ModalityConfig(Kind.text)}
    found = check_split(DataConfig(name="x", path=str(tmp_path), modalities=modalities), "train").problems
    assert len(found) == 1 and "shard-000001.safetensors: columns of 1 of 3 shards are missing" in found[0]
    assert "mmpretrain shards index" in found[0]
