"""The index finds what WebDataset readers find, and the preflight names what is missing."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from mmpretrain.data.index import (
    DatasetState,
    IndexMissingError,
    ShardError,
    build_index,
    check_shards,
    dataset_state,
    load_index,
    verify_shards,
)
from tests.data.tars import contents, sample_members, write_tar


def test_lookup_crosses_shards_and_keeps_order(tmp_path: Path) -> None:
    """Ordinals count through the shards by name; each span holds exactly its member's bytes."""
    write_tar(tmp_path / "b.tar", sample_members(2, start=3))
    write_tar(tmp_path / "a.tar", sample_members(3))
    index = build_index(tmp_path)
    assert [index.sample(i).key for i in range(5)] == ["0000", "0001", "0002", "0003", "0004"]
    assert [shard.samples for shard in index.shards] == [3, 2] and index.starts.tolist() == [0, 3, 5]
    assert index.locate(3) == (1, 0)
    assert contents(index)["0004"] == {
        "caption.txt": b"0004 caption.txt" * 3,
        "label.cls": b"0004 label.cls" * 3,
    }
    with pytest.raises(IndexError, match="no sample number 5"):
        index.sample(5)


def test_loaded_index_equals_built_one(tmp_path: Path) -> None:
    """Round trip, also with members that only some samples have; a copy has the same fingerprint."""
    write_tar(tmp_path / "a.tar", [*sample_members(2), ("z.caption.txt", b"no label")])
    built = build_index(tmp_path)
    loaded = load_index(tmp_path)
    assert contents(loaded) == contents(built) and loaded.fingerprint == built.fingerprint
    assert loaded.sample(2).members.keys() == {"caption.txt"}
    copy = shutil.copytree(tmp_path, tmp_path.parent / f"{tmp_path.name}-copy")
    assert build_index(copy).fingerprint == built.fingerprint
    write_tar(tmp_path / "a.tar", sample_members(3))
    assert build_index(tmp_path).fingerprint != built.fingerprint
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.tar", "index.json"]


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_reads_what_webdataset_reads(tmp_path: Path, form: int) -> None:
    """Same keys, extensions and bytes as webdataset's own reader, in every tar dialect."""
    from webdataset.tariterators import tarfile_samples

    long = f"{'folder/' * 20}0009.caption.txt"
    members = [*sample_members(), ("sub.d/0007.LEFT.PNG", b"x"), ("ü.caption.txt", b"")]
    members += [(long, b"long name")] if form != tarfile.USTAR_FORMAT else []
    write_tar(tmp_path / "a.tar", members, form)
    theirs = {
        s["__key__"]: {ext: value for ext, value in s.items() if not ext.startswith("__")}
        for s in tarfile_samples([{"url": str(tmp_path / "a.tar")}])
    }
    assert contents(build_index(tmp_path)) == theirs


@pytest.mark.processes
def test_gnu_tar_with_folder_entries(tmp_path: Path) -> None:
    """A tar made by hand from a folder is accepted, its folder entries are not samples."""
    source = tmp_path / "source" / "part"
    source.mkdir(parents=True)
    for key in "ab":
        (source / f"{key}.caption.txt").write_text(key)
    subprocess.run(["tar", "cf", tmp_path / "a.tar", "-C", tmp_path / "source", "."], check=True)
    assert set(contents(build_index(tmp_path))) == {"./part/a", "./part/b"}


def test_keys_apart_or_twice(tmp_path: Path) -> None:
    """A key that comes back, in its own shard or another one, is refused."""
    write_tar(tmp_path / "a.tar", [("a.x.txt", b""), ("b.x.txt", b""), ("a.y.txt", b"")])
    with pytest.raises(ShardError, match=r"'a\.y\.txt' is apart from its sample"):
        build_index(tmp_path)
    write_tar(tmp_path / "a.tar", [("a.x.txt", b""), ("a.X.txt", b"")])
    with pytest.raises(ShardError, match="twice"):
        build_index(tmp_path)
    write_tar(tmp_path / "a.tar", sample_members(2))
    write_tar(tmp_path / "b.tar", sample_members(2, start=1))
    with pytest.raises(ShardError, match=r"b\.tar: key '0001' is there twice"):
        build_index(tmp_path)


def test_damaged_index_is_refused(tmp_path: Path) -> None:
    """Any change of the content is noticed, and a shard's name cannot leave the folder."""
    write_tar(tmp_path / "a.tar", sample_members(2))
    build_index(tmp_path)
    path = tmp_path / "index.json"
    text = path.read_text()
    for damaged in (
        text[:-20],
        text.replace("0001", "0007"),
        "[]",
        "{}",
        text.replace("a.tar", "../a.tar"),
        "null",
    ):
        path.write_text(damaged)
        with pytest.raises(ShardError, match=r"index\.json is damaged.*mmpretrain shards index"):
            load_index(tmp_path)
    document = json.loads(text)
    document["shards"][0]["spans"][0] = 1 << 62
    path.write_text(json.dumps(document))
    with pytest.raises(ShardError, match="outside"):
        load_index(tmp_path)
    path.unlink()
    with pytest.raises(IndexMissingError):
        load_index(tmp_path)


def test_check_names_the_file_and_the_fix(tmp_path: Path) -> None:
    """Each kind of trouble gives one sentence; a sound folder gives none."""
    assert check_shards(tmp_path, ["caption"], build_hint="make data") == [
        f"{tmp_path}/index.json is missing: run `make data`"
    ]
    write_tar(tmp_path / "a.tar", [*sample_members(2), ("z.caption.txt", b"no label")])
    assert "mmpretrain shards index" in check_shards(tmp_path, ["caption"], build_hint="make data")[0]
    build_index(tmp_path)
    assert check_shards(tmp_path, ["caption"]) == []
    problems = check_shards(tmp_path, {"caption": 1, "image": 2}, label_needed=True)
    assert "3 of 3 samples have no 'image'" in problems[0] and "caption, label" in problems[0]
    assert "1 of 3 samples have no 'label' (first: key 'z' in a.tar)" in problems[1] and len(problems) == 2
    with open(tmp_path / "a.tar", "ab") as file:
        file.truncate(512)
    write_tar(tmp_path / "new.tar", sample_members(1, start=9))
    problems = check_shards(tmp_path, ["caption"], build_hint="make data")
    assert "a.tar has 512 bytes" in problems[0] and "make data" in problems[0]
    assert "new.tar is not in the index" in problems[1]
    (tmp_path / "a.tar").unlink()
    assert "a.tar is missing: build the dataset again" in check_shards(tmp_path, ["caption"])[0]


def test_dataset_without_samples_is_a_problem(tmp_path: Path) -> None:
    """An empty tar indexes, and the preflight says that nothing is there."""
    write_tar(tmp_path / "a.tar", [])
    assert len(build_index(tmp_path)) == 0
    assert check_shards(tmp_path, ["caption"])[0].startswith(f"{tmp_path} has no samples")


def test_missing_and_broken_datasets_differ(tmp_path: Path) -> None:
    """Nothing built yet is not the same as something broken."""
    assert dataset_state(tmp_path / "nowhere") is DatasetState.missing
    assert dataset_state(tmp_path) is DatasetState.missing
    (tmp_path / "train").mkdir()
    write_tar(tmp_path / "train" / "a.tar", sample_members(1))
    assert dataset_state(tmp_path) is DatasetState.built
    assert dataset_state("s3://bucket/data") is DatasetState.built


def test_verify_finds_a_flipped_payload_bit(tmp_path: Path) -> None:
    """Payload damage has no header checksum: only sha256 sees it."""
    path = write_tar(tmp_path / "a.tar", sample_members(1))
    index = build_index(tmp_path)
    assert verify_shards(index) == []
    content = bytearray(path.read_bytes())
    content[600] ^= 1
    path.write_bytes(content)
    assert "a.tar has changed" in verify_shards(load_index(tmp_path))[0]
    path.unlink()
    assert "cannot be read" in verify_shards(index)[0]


def test_remote_index(tmp_path: Path) -> None:
    """The index and the preflight work on an fsspec URL."""
    fsspec = pytest.importorskip("fsspec")
    write_tar(tmp_path / "a.tar", sample_members(2))
    build_index(tmp_path)
    memory = fsspec.filesystem("memory")
    memory.put(str(tmp_path), "/remote-index", recursive=True)
    try:
        index = load_index("memory://remote-index")
        assert len(index) == 2 and index.path(index.shards[0]) == "memory://remote-index/a.tar"
        assert check_shards("memory://remote-index", ["caption"], label_needed=True) == []
        assert "is missing" in check_shards("memory://nowhere", ["caption"])[0]
    finally:
        memory.rm("/remote-index", recursive=True)


@pytest.mark.processes
def test_index_imports_no_torch() -> None:
    """The launcher's preflight answers within seconds because nothing heavy is imported."""
    probe = "import sys, mmpretrain.data.index; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True).stdout == "False\n"
