"""Building goes on where it ended, scans what is new and nothing else, and never trusts what may be stale."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import pytest

from mmpretrain.data import index_build
from mmpretrain.data.index import Index, ShardError, build_index, load_index
from mmpretrain.data.index_scan import ScannedShard, scan_shard
from tests.data.tars import contents, keys_by_shard, sample_members, write_tar


@pytest.fixture
def scanned(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the tars that are scanned from here on."""
    names: list[str] = []

    def noted(path: Path) -> ScannedShard:
        names.append(path.name)
        return scan_shard(path)

    monkeypatch.setattr(index_build, "scan_shard", noted)
    return names


def tick() -> None:
    """Let the clock of the file system go on: what is as old as a tar counts as older."""
    time.sleep(0.02)


def three(folder: Path) -> Path:
    """Three tars."""
    for number in range(3):
        write_tar(folder / f"{number}.tar", sample_members(2, start=2 * number))
    tick()
    return folder


def test_a_second_build_scans_nothing_and_a_third_all(tmp_path: Path, scanned: list[str]) -> None:
    first = build_index(three(tmp_path))
    assert scanned == ["0.tar", "1.tar", "2.tar"]
    files = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert build_index(tmp_path).fingerprint == first.fingerprint and len(scanned) == 3
    build_index(tmp_path, again=True)
    assert len(scanned) == 6 and all(path.read_bytes() == content for path, content in files.items())
    assert [path.name for path in (tmp_path / "columns").iterdir() if path.suffix != ".safetensors"] == []


def test_shards_are_added_and_taken_away_without_scanning_the_others(tmp_path: Path, scanned: list[str]) -> None:
    build_index(three(tmp_path))
    scanned.clear()
    write_tar(tmp_path / "01.tar", sample_members(1, start=9))
    (tmp_path / "2.tar").unlink()
    index = build_index(tmp_path)
    assert scanned == ["01.tar"] and keys_by_shard(index) == [["0000", "0001"], ["0009"], ["0002", "0003"]]
    assert sorted(path.stem for path in (tmp_path / "columns").iterdir()) == ["0", "01", "1"]
    assert contents(load_index(tmp_path)) == contents(index)


def test_a_build_that_was_interrupted_goes_on(tmp_path: Path, scanned: list[str]) -> None:
    three(tmp_path)
    whole = (tmp_path / "2.tar").read_bytes()
    (tmp_path / "2.tar").write_bytes(whole[:700])
    with pytest.raises(ShardError, match=r"2\.tar: damaged header after"):
        build_index(tmp_path)
    assert not (tmp_path / "index.json").exists()
    (tmp_path / "2.tar").write_bytes(whole)
    scanned.clear()
    (tmp_path / "columns" / "1.safetensors").write_bytes(b"half of a file")
    assert list(contents(build_index(tmp_path))) == [f"{n:04d}" for n in range(6)]
    assert scanned == ["1.tar", "2.tar"]


def test_a_tar_of_the_same_size_and_an_older_time_is_scanned(tmp_path: Path, scanned: list[str]) -> None:
    """Its content was changed and its time set back, as rsync does: the time of the change tells."""
    build_index(three(tmp_path))
    path, before = tmp_path / "1.tar", (tmp_path / "1.tar").stat()
    tick()
    write_tar(path, sample_members(2, start=7))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_size == before.st_size
    scanned.clear()
    assert keys_by_shard(build_index(tmp_path))[1] == ["0007", "0008"] and scanned == ["1.tar"]


def test_columns_that_are_newer_than_the_manifest_are_not_taken_for_those_of_it(tmp_path: Path) -> None:
    """A build was killed after a changed tar was scanned: its old line must not come back."""
    build_index(three(tmp_path))
    manifest = (tmp_path / "index.json").read_bytes()
    write_tar(tmp_path / "1.tar", sample_members(2, start=7))
    tick()
    times = (tmp_path / "index.json").stat()
    build_index(tmp_path)
    (tmp_path / "index.json").write_bytes(manifest)
    os.utime(tmp_path / "index.json", ns=(times.st_atime_ns, times.st_mtime_ns))
    with pytest.raises(ShardError, match=r"1\.safetensors is damaged or out of date"):
        load_index(tmp_path).sample(2)
    assert keys_by_shard(build_index(tmp_path))[1] == ["0007", "0008"]
    assert keys_by_shard(load_index(tmp_path))[1] == ["0007", "0008"]


def test_a_tar_that_changes_while_it_is_read_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    three(tmp_path)

    def growing(path: Path) -> ScannedShard:
        found = scan_shard(path)
        os.utime(path)
        return found

    monkeypatch.setattr(index_build, "scan_shard", growing)
    with pytest.raises(ShardError, match=r"0\.tar changed while it was read"):
        build_index(tmp_path)


def test_an_unreadable_manifest_is_built_anew(tmp_path: Path, scanned: list[str]) -> None:
    build_index(three(tmp_path))
    (tmp_path / "index.json").write_text("{")
    scanned.clear()
    assert len(build_index(tmp_path)) == 6 and scanned == []


@pytest.mark.processes
def test_processes_index_together_what_one_does(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    three(tmp_path / "one")
    for tar in (tmp_path / "one").glob("*.tar"):
        shutil.copy(tar, tmp_path / "two")
    said: list[tuple[str, int, int]] = []
    indexes: list[Index] = [
        build_index(tmp_path / "one"),
        build_index(tmp_path / "two", lambda *done: said.append(done), workers=2),
    ]
    assert contents(indexes[0]) == contents(indexes[1])
    assert [path.read_bytes() for path in sorted((tmp_path / "one").rglob("*.*"))] == [
        path.read_bytes() for path in sorted((tmp_path / "two").rglob("*.*"))
    ]
    assert said == [("0.tar", 0, 3), ("0.tar", 1, 3), ("1.tar", 2, 3), ("2.tar", 3, 3)]
    (tmp_path / "two" / "1.tar").write_bytes(b"x" * 1024)
    with pytest.raises(ShardError, match=r"1\.tar: damaged header"):
        build_index(tmp_path / "two", workers=2, again=True)


def test_a_folder_that_cannot_be_written_to_is_named_with_a_way_on(tmp_path: Path) -> None:
    write_tar(tmp_path / "a.tar", [("0.a.txt", b"x")])
    (tmp_path / "columns").write_bytes(b"")  # as a read-only file system, nothing can be made here
    with pytest.raises(ShardError, match=r"columns cannot be made .* index a copy"):
        build_index(tmp_path)


def test_columns_of_another_tar_of_the_same_name_and_size_are_not_taken(tmp_path: Path) -> None:
    for name, start in (("mine", 0), ("other", 5)):
        (tmp_path / name).mkdir()
        write_tar(tmp_path / name / "0.tar", sample_members(2, start=start))
    mine = build_index(tmp_path / "mine")
    tick()
    build_index(tmp_path / "other")
    shutil.copy(tmp_path / "other/columns/0.safetensors", tmp_path / "mine/columns/0.safetensors")
    assert (tmp_path / "mine/0.tar").stat().st_size == (tmp_path / "other/0.tar").stat().st_size
    again = build_index(tmp_path / "mine")
    assert again.fingerprint == mine.fingerprint and list(again.all_keys()) == list(mine.all_keys())
