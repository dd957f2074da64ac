"""Shards of columns: every reader finds the same vectors in them, and damaged ones are refused."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from mmpretrain.config.data import DataConfig, Kind, ModalityConfig
from mmpretrain.data.column_shards import ABOUT, KEYS, Column, Table, joined, read_columns, write_columns
from mmpretrain.data.decode import SampleError, decode
from mmpretrain.data.index import ShardError, build_index, load_index, verify_shards
from mmpretrain.data.index_build import keep_columns
from mmpretrain.data.members import Holders
from mmpretrain.data.reader import Reader
from mmpretrain.data.row_reader import RowReader
from mmpretrain.data.stream import Stream

ROWS, WIDTH = 11, 3
HAS = np.arange(ROWS) % 3 > 0


def table(first: int = 0, dtype: str = "<f4") -> Table:
    """Vectors ``a`` of all samples, ``b`` of some, and labels."""
    values = (np.arange(ROWS * WIDTH).reshape(ROWS, WIDTH) + first).astype(dtype)
    labels = np.char.rjust((np.arange(ROWS) % 3).astype("S3"), 3)
    keys = [f"s{first + row:04d}" for row in range(ROWS)]
    suffix = "f16" if dtype == "<f2" else "f32"
    return Table(
        keys, {f"a.{suffix}": Column(values), f"b.{suffix}": Column(-values[HAS], HAS), "label.cls": Column(labels)}
    )


def split(folder: Path, shards: int = 3, dtype: str = "<f4") -> Path:
    """A folder of such shards, indexed."""
    folder.mkdir(parents=True)
    for number in range(shards):
        write_columns(folder / f"shard-{number}.tar", table(100 * number, dtype))
    build_index(folder)
    return folder


@pytest.mark.parametrize("dtype", ["<f4", "<f2"])
def test_samples_are_read_one_by_one_like_those_of_any_shard(tmp_path: Path, dtype: str) -> None:
    index = load_index(split(tmp_path / "x", dtype=dtype))
    suffix = index.extensions[0].rpartition(".")[2]
    assert len(index) == 33 and index.count([f"b.{suffix}"]) == 3 * HAS.sum() and not verify_shards(index)
    reader = Reader(index)
    for ordinal in (0, 4, 12, 32):
        sample, row = reader.sample(ordinal), ordinal % ROWS
        value = decode(f"a.{suffix}", sample[f"a.{suffix}"], Kind.vector)
        assert sample["__key__"] == f"s{100 * (ordinal // ROWS) + row:04d}"
        assert np.array_equal(value, np.arange(row * WIDTH, row * WIDTH + WIDTH) + 100 * (ordinal // ROWS))
        assert (f"b.{suffix}" in sample) == HAS[row] and sample["label.cls"].strip() == str(row % 3).encode()


def test_many_rows_are_read_at_once_in_any_order_with_their_keys(tmp_path: Path) -> None:
    rows = RowReader(Reader(load_index(split(tmp_path / "x"))))
    assert rows.extension(Holders(("a.f32",))) == "a.f32" and rows.extension(Holders(("b.f32",))) is None
    ordinals = np.array([30, 2, 2, 15, 0, 31])
    found = rows.read(ordinals, "a.f32")
    assert found is not None and found[:, 0].tolist() == [200 + 24, 6, 6, 100 + 12, 0, 200 + 27]
    assert rows.keys(ordinals) == ("s0208", "s0002", "s0002", "s0104", "s0000", "s0209")
    having = np.flatnonzero(HAS)
    found = rows.read(having, "b.f32")  # side by side in the file, though not in the numbers
    assert found is not None and np.array_equal(found[:, 0], -3.0 * having)
    assert rows.read(np.array([0, 1]), "b.f32") is None  # the first one has none
    for wrong in (-1, 33):
        with pytest.raises(IndexError, match=rf"has 33 samples: there is no sample number {wrong}"):
            rows.read(np.array([0, wrong]), "a.f32")
        with pytest.raises(IndexError, match="there is no sample number"):
            rows.keys(np.array([wrong]))


def test_the_index_is_kept_or_made_again_and_says_the_same(tmp_path: Path) -> None:
    """A shard's columns are written with it; without them, its headers are read."""
    kept, made = tmp_path / "kept", tmp_path / "made"
    for folder in (kept, made):
        folder.mkdir()
        known = write_columns(folder / "shard-0.tar", table())
        if folder is kept:
            keep_columns(folder / "shard-0.tar", *known)
        build_index(folder)
    names = ("index.json", "columns/shard-0.safetensors", "shard-0.tar")
    assert all((kept / name).read_bytes() == (made / name).read_bytes() for name in names)
    assert build_index(kept, again=True).fingerprint == load_index(made).fingerprint


def test_tables_of_batches_make_one_where_some_lack_a_column() -> None:
    first, second = table(), table(100)
    lacking = Table(second.keys, {"a.f32": second.columns["a.f32"]})
    whole = joined([Table([], {}), first, lacking])
    assert whole.keys == [*first.keys, *second.keys]
    assert whole.columns["a.f32"].rows.shape == (2 * ROWS, WIDTH)
    has = whole.columns["b.f32"].has
    assert has is not None and np.array_equal(has, [*HAS, *np.zeros(ROWS, bool)])


def values(*, a: np.ndarray | list[np.ndarray]) -> dict:
    """A processor that says how it was called."""
    return {
        "a": {"values": torch.from_numpy(np.stack(list(a)).copy()), "whole": torch.tensor(isinstance(a, np.ndarray))}
    }


def test_the_stream_reads_tables_whole_and_gives_what_it_gives_of_single_samples(tmp_path: Path) -> None:
    """A row that is not finite is found and replaced, as it would be in any shard."""
    config = DataConfig(
        name="x", path=str(tmp_path), modalities={"a": ModalityConfig(Kind.vector, [WIDTH])}, global_batch=8
    )
    folder = split(tmp_path / "train")
    batches = list(Stream(config, "train", 0, 0, 1, values).batches(0, 3))
    assert all(bool(batch.inputs["a"]["whole"]) for batch in batches)
    reader = Reader(load_index(folder))
    for batch in batches:
        singly = [decode("a.f32", reader.sample(int(i))["a.f32"], Kind.vector) for i in batch.sample_ids]
        assert np.array_equal(batch.inputs["a"]["values"].numpy(), np.stack(singly))
        assert list(batch.keys) == [reader.sample(int(i))["__key__"] for i in batch.sample_ids]
    broken = table()
    broken.columns["a.f32"].rows[3, 1] = np.nan
    write_columns(folder / "shard-0.tar", broken)
    build_index(folder)
    (batch,) = Stream(replace_bad(config), "train", 0, 0, 1, values).batches(0, 1)
    assert [entry.key for entry in batch.replaced] == ["s0003"] and not bool(batch.inputs["a"]["whole"])


def replace_bad(config: DataConfig) -> DataConfig:
    """With all samples in one batch, of which some may be bad."""
    return replace(config, global_batch=33, max_bad_fraction=0.1)


def members(path: Path) -> dict[str, bytes]:
    """Of a tar."""
    with tarfile.open(path) as tar:
        return {info.name: tar.extractfile(info).read() for info in tar}  # type: ignore[union-attr]


def about(text: bytes, **changes: object) -> bytes:
    """about.json with other entries."""
    return json.dumps(json.loads(text) | changes).encode()


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        (ABOUT, lambda text: about(text, samples=10**15), "more samples than keys"),
        (ABOUT, lambda text: about(text, samples=10), "another number of keys"),
        (ABOUT, lambda text: about(text, columns={"a.f32": 8}), "other rows than it promises"),
        (ABOUT, lambda text: about(text, columns={"../a": 12}), "odd columns"),
        (ABOUT, lambda text: b"[]", "damaged"),
        (KEYS, lambda text: text.replace(b"s0001", b"s0000"), "twice"),
        (KEYS, lambda text: text.replace(b"s0001", b"../01"), "upwards"),
        (KEYS, lambda text: text.replace(b"s0001", b"s\x1b[1m"), "control"),
        ("__columns__/b.f32.has", lambda text: b"\x01" * len(text), "other rows"),
        ("../x", lambda text: b"", "none of columns"),
    ],
)
def test_damaged_and_hostile_shards_are_refused(
    tmp_path: Path, name: str, change: Callable[[bytes], bytes], said: str
) -> None:
    path = tmp_path / "shard-0.tar"
    write_columns(path, table())
    content = members(path)
    content[name] = change(content.get(name, b""))
    with tarfile.open(path, "w") as tar:
        for member, data in content.items():
            info = tarfile.TarInfo(member)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    with pytest.raises(ShardError, match=said):
        read_columns(path)
    with pytest.raises(ShardError, match=said):
        build_index(tmp_path)


def test_a_row_of_half_a_value_or_not_finite_is_unfit() -> None:
    for data, said in ((b"\0" * 6, "no row of float32"), (b"", "no row"), (b"\0\0\x80\x7f", "not finite")):
        with pytest.raises(SampleError, match=said):
            decode("a.f32", data, Kind.vector)


def test_keys_that_could_not_be_told_apart_are_not_written(tmp_path: Path) -> None:
    for keys in (["a", "a"], ["a", "b\nc"], ["a", ""]):
        with pytest.raises(ValueError, match="keys of samples must differ"):
            write_columns(tmp_path / "x.tar", Table(keys, {"a.f32": Column(np.zeros((2, 1), "<f4"))}))
