"""The index finds what WebDataset readers find, and the preflight names what is missing."""

from __future__ import annotations

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
    dataset_state,
    load_index,
    verify_shards,
)
from tests.data.tars import contents, keys_by_shard, sample_members, write_tar


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
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.tar", "columns", "index.json"]


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
    """A key that comes back in its own shard is refused."""
    write_tar(tmp_path / "a.tar", [("a.x.txt", b""), ("b.x.txt", b""), ("a.y.txt", b"")])
    with pytest.raises(ShardError, match=r"'a\.y\.txt' is apart from its sample"):
        build_index(tmp_path)
    write_tar(tmp_path / "a.tar", [("a.x.txt", b""), ("a.X.txt", b"")])
    with pytest.raises(ShardError, match="twice"):
        build_index(tmp_path)


def test_damaged_index_is_refused(tmp_path: Path) -> None:
    """Any change of the content is noticed, and a shard's name cannot leave the folder."""
    write_tar(tmp_path / "a.tar", sample_members(2))
    build_index(tmp_path)
    path = tmp_path / "index.json"
    text = path.read_text()
    for damaged in (
        text[:-20],
        text.replace('"samples":2', '"samples":1'),
        text.replace("caption", "captain"),
        "[]",
        "{}",
        text.replace("a.tar", "../a.tar"),
        "null",
    ):
        path.write_text(damaged)
        with pytest.raises(ShardError, match=r"index\.json is damaged.*mmpretrain shards index"):
            load_index(tmp_path)
    path.unlink()
    with pytest.raises(IndexMissingError):
        load_index(tmp_path)


def test_keys_may_start_again_in_the_next_shard(tmp_path: Path) -> None:
    """A sample is (shard, key)."""
    for name in ("a.tar", "b.tar"):
        write_tar(tmp_path / name, sample_members(2))
    index = build_index(tmp_path)
    assert [index.sample(ordinal).key for ordinal in range(4)] == ["0000", "0001"] * 2
    assert [index.unique_key(ordinal) for ordinal in (0, 3)] == ["000000/0000", "000001/0001"]
    assert load_index(tmp_path).fingerprint == index.fingerprint


def test_keys_with_dots_are_named_instead_of_filling_the_memory(tmp_path: Path) -> None:
    write_tar(tmp_path / "a.tar", [(f"photo.{number}.jpg", b"x") for number in range(300)])
    with pytest.raises(ShardError, match=r"300 different endings .*\.0\.jpg, .* the names contain dots"):
        build_index(tmp_path)


def test_what_systems_leave_beside_files_is_passed_over(tmp_path: Path) -> None:
    """In the folder and inside of a tar, with a line; names that only look strange are read."""
    names = ("nbsp\u00a0a", "ideographic\u3000b", "joiner\u200dc", "soft\u00add", "new\U0001fae9")
    members = [(f"{name}.caption.txt", b"x") for name in names]
    litter = [("__MACOSX/._0000.caption.txt", b"mac"), (".DS_Store", b"mac"), ("sub/._0001.caption.txt", b"mac")]
    write_tar(tmp_path / "a.tar", [*litter, *members])
    (tmp_path / "._a.tar").write_bytes(b"Mac OS X")
    said: list[str] = []
    index = build_index(tmp_path, say=said.append)
    assert keys_by_shard(index) == [list(names)]
    assert "a.tar: passed over __MACOSX/._0000.caption.txt, .DS_Store, sub/._0001.caption.txt" in said[0]


@pytest.mark.parametrize("name", ["0000.__key__", "0000.__url__.txt"])
def test_a_member_named_like_a_readers_own_field_is_refused(tmp_path: Path, name: str) -> None:
    write_tar(tmp_path / "a.tar", [(name, b"x")])
    with pytest.raises(ShardError, match="named like a reader's own field"):
        build_index(tmp_path)


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


def test_verify_can_hash_a_share_of_the_shards(tmp_path: Path) -> None:
    """Drawn by a seed; sizes and columns are compared in any case."""
    for number in range(10):
        write_tar(tmp_path / f"{number}.tar", sample_members(1, start=number))
    index = build_index(tmp_path)
    for path in tmp_path.glob("*.tar"):
        content = bytearray(path.read_bytes())
        content[600] ^= 1
        path.write_bytes(content)
    seen: list[tuple[str, int, int]] = []
    found = [verify_shards(index, share=0.3, seed=seed) for seed in (0, 0, 1)]
    assert [len(problems) for problems in found] == [3, 3, 3] and found[0] == found[1] != found[2]
    assert len(verify_shards(index, lambda *done: seen.append(done), share=0)) == 1
    assert seen[-1] == ("9.tar", 10, 10)
    (tmp_path / "columns" / "4.safetensors").write_bytes(b"x")
    (tmp_path / "5.tar").write_bytes(b"x")
    problems = " ".join(verify_shards(index, share=0))
    assert "columns/4.safetensors has changed: it has 1 bytes" in problems and "5.tar has changed" in problems


def test_many_keys_count_as_shared_without_being_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_tar(tmp_path / "a.tar", sample_members(2))
    write_tar(tmp_path / "b.tar", sample_members(2, start=2))
    index = build_index(tmp_path)
    assert [index.unique_key(ordinal) for ordinal in (0, 3)] == ["0000", "0003"]
    monkeypatch.setattr("mmpretrain.data.index_table.MOST_KEYS_COMPARED", 3)
    assert load_index(tmp_path).unique_key(3) == "000001/0003"
    assert (index.find("0003"), index.find("000"), index.key(2)) == (3, None, "0002")


@pytest.mark.processes
def test_index_imports_no_torch() -> None:
    """The launcher's preflight answers within seconds because nothing heavy is imported."""
    probe = "import sys, mmpretrain.data.index; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True).stdout == "False\n"
