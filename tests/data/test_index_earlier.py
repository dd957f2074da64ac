"""What version 0.1 wrote is read, converted, and known by the fingerprints that it computed."""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mmpretrain.data import index_build
from mmpretrain.data.index import Index, Pattern, ShardError, build_index, load_index
from mmpretrain.data.index_columns import Columns
from mmpretrain.engine.checkpoint_files import CheckpointError
from mmpretrain.training.known_data import known_data
from tests.data.tars import contents, sample_members, write_tar

# What version 0.1 made of the tars of ``folder``.
TEXT = (
    '{"version":1,"fingerprint":"c674acfe8047b3e6fa39fa3c75c7ffa70c28c721410ddd036c988eefe4ba02e0","shards":[\n'
    '{"bytes":10240,"extensions":["caption.txt","label.cls"],"keys":["0000","0001","\\u00fc"],"name":"00000.tar",'
    '"samples":3,"sha256":"e0510eeaeaa91010683afef2f7520e257e98ac0fbdfd1decf3b56c69faef3ee2",'
    '"spans":[512,48,1536,42,2560,48,3584,42,4608,0,-1,0]},\n'
    '{"bytes":10240,"extensions":["caption.txt","label.cls"],"keys":["0000"],"name":"00001.tar","samples":1,'
    '"sha256":"6a6b8c65dfcda702a5f104da5b554d8d1d121c4ff47c44b581df773aa518f286","spans":[512,48,1536,42]}\n]}\n'
)
WHOLE = "c674acfe8047b3e6fa39fa3c75c7ffa70c28c721410ddd036c988eefe4ba02e0"
KEPT = "b7385288d4c805ce860a73f2d20e8d5fa89d44c2b9ecb1fdab712b1839d2bc59"  # without the sample that has no label
JOINED = "0bf86d9e1ec2324a0365674156efd5bb535ea0c99abee6aacc85008883a91d88"  # with the folder of ``beside``


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two tars, and the index that version 0.1 wrote beside them."""
    made = tmp_path / "a"
    made.mkdir()
    write_tar(made / "00000.tar", [*sample_members(2), ("ü.caption.txt", b"")])
    write_tar(made / "00001.tar", sample_members(1))
    (made / "index.json").write_text(TEXT)
    later(made / "index.json")
    return made


def later(path: Path) -> None:
    """Make a file a little newer than all that was written so far."""
    newest = max(file.stat().st_mtime_ns for file in path.parent.rglob("*"))
    os.utime(path, ns=(newest + 10**6, newest + 10**6))


def labeled(pattern: Pattern) -> bool:
    """Whether samples have a label."""
    return bool(pattern.of(["label.cls"]))


def test_it_is_read_into_memory_and_gives_the_samples_and_fingerprint_of_a_new_one(folder: Path) -> None:
    earlier = load_index(folder)
    assert all(isinstance(shard.stored, Columns) for shard in earlier.shards)
    read = contents(earlier)
    built = build_index(folder, again=True)
    assert contents(built) == read and built.fingerprint == earlier.fingerprint
    assert earlier.patterns == built.patterns


@pytest.mark.parametrize("again", [False, True])
def test_its_fingerprints_are_known_of_whole_kept_and_joined_indexes(folder: Path, again: bool) -> None:
    if again:
        build_index(folder, again=True)
    index = load_index(folder)
    beside = folder.parent / "b"
    beside.mkdir()
    write_tar(beside / "00000.tar", [("z.caption.txt", b"z")])
    joined = Index(folder, [*index.shards, *build_index(beside).shards])
    for known, found in ((WHOLE, index), (KEPT, index.kept(labeled)), (JOINED, joined), (KEPT, joined.kept(labeled))):
        assert found.is_known_as(known) and found.is_known_as(found.fingerprint) and found.fingerprint != known
        others = {WHOLE, KEPT, JOINED, "0" * 64} - {known}
        assert not any(found.is_known_as(other) for other in others)


def test_it_is_converted_without_scanning(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = contents(load_index(folder))
    monkeypatch.setattr(index_build, "scan_shard", lambda path: pytest.fail(f"{path} is scanned"))
    assert contents(build_index(folder)) == read
    assert json.loads((folder / "index.json").read_text())["version"] == 2 and contents(load_index(folder)) == read


def test_a_tar_that_changed_since_is_scanned(folder: Path) -> None:
    write_tar(
        folder / "00001.tar", [("x.caption.txt", b"0000 caption.txt" * 3), ("x.label.cls", b"0000 label.cls" * 3)]
    )
    later(folder / "00001.tar")
    assert list(contents(build_index(folder))) == ["0000", "0001", "ü", "x"]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"0001"', '"0007"'),
        ("[512,48,", f"[{1 << 62},48,"),
        ('"00001.tar"', '"../1.tar"'),
        ('"spans"', '"spam"'),
        ("4608,0", "4608,-1"),
    ],
)
def test_a_damaged_one_is_refused(folder: Path, old: str, new: str) -> None:
    (folder / "index.json").write_text(TEXT.replace(old, new))
    with pytest.raises(ShardError, match=r"index\.json is damaged.*mmpretrain shards index"):
        load_index(folder)


def test_a_run_of_that_version_goes_on(folder: Path) -> None:
    """Its checkpoints hold the earlier fingerprint; another data set is still refused."""
    config: Any = SimpleNamespace(
        data=SimpleNamespace(place=str(folder), accept_index=None),
        finetune=SimpleNamespace(before=False),
        evaluation=SimpleNamespace(best=SimpleNamespace(score=None)),
    )
    for index in (load_index(folder), load_index(folder).kept(labeled)):
        stream: Any = SimpleNamespace(index=index, plan=SimpleNamespace(facts={}))
        known = WHOLE if len(index) == 4 else KEPT
        for fingerprint in (known, index.fingerprint):
            assert known_data({"index": fingerprint, "step": 3}, stream, config) == []
        with pytest.raises(CheckpointError, match="have changed since the checkpoint"):
            known_data({"index": JOINED, "step": 3}, stream, config)
