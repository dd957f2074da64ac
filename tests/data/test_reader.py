"""Reading by ordinal gives what webdataset reads in sequence, from the shards that were indexed and no others."""

from __future__ import annotations

import hashlib
import os
import pickle
from io import FileIO
from pathlib import Path
from typing import Any

import pytest
import webdataset

from mmpretrain.config.data import Verify
from mmpretrain.data import reader as module
from mmpretrain.data.decode import SampleError
from mmpretrain.data.index import Index, ShardError
from mmpretrain.data.members import Holders, Members
from mmpretrain.data.reader import Reader
from tests.data.small_dataset import write_split

SIZES = (5, 1, 4)


@pytest.fixture
def index(tmp_path: Path) -> Index:
    """The index of a small split."""
    return write_split(tmp_path, SIZES)


def first_shard(index: Index) -> Path:
    """The file of shard 0."""
    return Path(index.path(index.shards[0]))


def flip_byte(path: Path, offset: int) -> None:
    """Change one bit of the byte at ``offset``."""
    content = bytearray(path.read_bytes())
    content[offset] ^= 1
    path.write_bytes(content)


def test_reads_what_webdataset_reads(index: Index) -> None:
    urls = [index.path(shard) for shard in index.shards]
    expected = {s["__key__"]: s for s in webdataset.WebDataset(urls, shardshuffle=False)}
    ordinals = [9, 0, 4, 5, 0]
    samples = list(Reader(index).samples(ordinals))
    assert [s["__key__"] for s in samples] == [f"s{o:04d}" for o in ordinals]
    for sample in samples:
        other = expected[sample["__key__"]]
        assert sample["__url__"] == other["__url__"]
        assert {k: v for k, v in sample.items() if k[0] != "_"} == {k: v for k, v in other.items() if k[0] != "_"}


def test_webdataset_stages_take_the_samples(index: Index) -> None:
    pipeline = webdataset.DataPipeline(
        lambda: Reader(index).samples(range(10)),
        webdataset.decode("pil"),
        webdataset.to_tuple("picture.png", "label.cls"),
    )
    images, labels = zip(*pipeline, strict=True)
    assert labels == tuple(number % 7 for number in range(10))
    assert all(image.size == (6, 4) for image in images)


def test_only_wanted_modalities_are_read(index: Index) -> None:
    members = Members({"values": Holders(("values.npy",))}, Holders(("label.cls",)))
    sample = Reader(index, members=members).sample(3)
    assert [name for name in sample if not name.startswith("__")] == ["label.cls", "values.npy"]


def test_few_files_stay_open(index: Index) -> None:
    reader = Reader(index, max_open=2)
    before = len(os.listdir("/proc/self/fd"))
    list(reader.samples([0, 5, 6, 0, 9, 5] * 3))
    assert len(os.listdir("/proc/self/fd")) == before + 4  # each with its columns
    reader.close()
    assert len(os.listdir("/proc/self/fd")) == before
    assert reader.sample(7)["__key__"] == "s0007"


def test_a_pickled_copy_opens_its_own_files(index: Index) -> None:
    reader = Reader(index)
    reader.sample(0)
    copy = pickle.loads(pickle.dumps(reader))
    reader.close()
    assert copy.sample(0)["__key__"] == "s0000"


def test_a_missing_shard_names_file_and_fix(index: Index) -> None:
    first_shard(index).unlink()
    with pytest.raises(ShardError, match=r"shard-000000\.tar cannot be opened \(No such file.*run `make-small`"):
        Reader(index, build="make-small").sample(0)


def test_a_truncated_shard_is_refused_even_unverified(index: Index) -> None:
    os.truncate(first_shard(index), 3000)
    with pytest.raises(ShardError, match=rf"has 3000 bytes, the index says {index.shards[0].bytes}"):
        Reader(index, Verify.never).sample(0)


def test_a_flipped_bit_is_found_on_first_use(index: Index) -> None:
    flip_byte(first_shard(index), index.sample(2).members["values.npy"][0] + 100)
    with pytest.raises(ShardError, match=r"the index says .* `mmpretrain shards index .* --again`"):
        Reader(index).sample(0)
    assert Reader(index).sample(7)["__key__"] == "s0007"
    assert Reader(index, Verify.never).sample(0)["__key__"] == "s0000"


def test_shards_are_hashed_once(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    hashed = []
    digest = module.hashlib.file_digest

    def counted(file: FileIO, name: str) -> object:
        hashed.append(name)
        return digest(file, name)

    monkeypatch.setattr(module.hashlib, "file_digest", counted)
    list(Reader(index, max_open=1).samples([0, 6, 0, 6, 0, 6]))
    assert len(hashed) == 2


def test_a_shard_changed_while_it_is_open_is_found(index: Index) -> None:
    reader = Reader(index)
    reader.sample(0)
    flip_byte(first_shard(index), index.sample(0).members["values.npy"][0] + 100)
    with pytest.raises(ShardError, match="sha256"):
        reader.sample(0)


def test_a_copied_back_shard_is_accepted(index: Index) -> None:
    reader = Reader(index)
    before = reader.sample(0)
    path = first_shard(index)
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content)
    assert reader.sample(0) == before


def test_a_huge_member_is_not_read(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_ENCODED_BYTES", 100)
    with pytest.raises(SampleError, match=r"values\.npy: has 140 bytes, more than 100"):
        Reader(index, members=Members({"values": Holders(("values.npy",))})).sample(0)


@pytest.mark.processes
def test_processes_that_share_a_reader_hash_a_shard_once(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    reader = Reader(index)
    child = os.fork()
    if not child:
        reader.sample(0)
        os._exit(0)
    os.waitpid(child, 0)
    hashed: list[object] = []
    whole = hashlib.file_digest

    def counted(file: Any, name: str) -> object:
        hashed.append(file)
        return whole(file, name)

    monkeypatch.setattr(hashlib, "file_digest", counted)
    reader.sample(0)
    assert not hashed
    reader.sample(len(index) - 1)
    assert len(hashed) == 1
