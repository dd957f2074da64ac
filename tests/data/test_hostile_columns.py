"""Index files that are damaged or lie, and say that they are whole: refused from the stream on, in bounded memory."""

from __future__ import annotations

import hashlib
import json
import os
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load, save

from mmpretrain.data.index import Index, ShardError, load_index
from mmpretrain.data.index_store import StoredColumns
from mmpretrain.data.index_text import to_text
from tests.data.small_dataset import write_split
from tests.data.test_hostile_shards import outcome

COLUMNS = "train/columns/shard-000000.safetensors"
HUGE = 10**18


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set of one shard with 3 samples; tests put it back as it was."""
    path = tmp_path_factory.mktemp("columns")
    write_split(path / "train", (3,))
    return path


@pytest.fixture
def data(whole: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    import shutil

    return Path(shutil.copytree(whole, tmp_path / "data"))


def believed(path: Path, columns: bytes | None = None, **changes: Any) -> None:
    """Write these columns, and an index that says of them, and of the shard, what a liar would say."""
    index = load_index(path / "train")
    if columns is not None:
        (path / COLUMNS).unlink(missing_ok=True)
        (path / COLUMNS).write_bytes(columns)
        changes["stored"] = StoredColumns(len(columns), hashlib.sha256(columns).hexdigest())
    shards = [replace(shard, **changes) for shard in index.shards]
    (path / "train/index.json").write_text(to_text(Index(path / "train", shards)))


def refused(path: Path) -> bool:
    """Whether a run over it is refused; reading it once is enough to know."""
    return outcome(path) is None


@pytest.mark.parametrize("every", [41, pytest.param(1, marks=pytest.mark.slow)])
def test_every_damaged_byte_of_the_columns_is_refused(whole: Path, every: int) -> None:
    """One bit of header and data each, and every length: the index knows their sha256."""
    path = whole / COLUMNS
    columns = path.read_bytes()
    try:
        for at in range(0, len(columns), every):
            for mutant in (columns[:at] + bytes([columns[at] ^ 4]) + columns[at + 1 :], columns[:at]):
                path.write_bytes(mutant)
                assert refused(whole), at
    finally:
        path.write_bytes(columns)
    assert not refused(whole)


@pytest.mark.parametrize("every", [41, pytest.param(1, marks=pytest.mark.slow)])
def test_damaged_columns_that_the_index_believes_lead_nowhere(whole: Path, every: int) -> None:
    """With a sha256 that fits, what comes of them is a refusal, or members of this very tar."""
    columns, index = (whole / COLUMNS).read_bytes(), (whole / "train/index.json").read_text()
    try:
        for at in range(0, len(columns), every):
            for bit in (1, 0x80):
                (whole / "train/index.json").write_text(index)
                believed(whole, columns[:at] + bytes([columns[at] ^ bit]) + columns[at + 1 :])
                outcome(whole)
            (whole / "train/index.json").write_text(index)
            believed(whole, columns[:at])
            assert refused(whole), at
    finally:
        (whole / COLUMNS).write_bytes(columns)
        (whole / "train/index.json").write_text(index)


def changed(name: str, change: Callable[[np.ndarray], np.ndarray]) -> Callable[[bytes], bytes]:
    """The columns with one array changed."""

    def apply(columns: bytes) -> bytes:
        arrays = load(columns)
        arrays[name] = np.ascontiguousarray(change(arrays[name].copy()))
        return save(arrays, _header(columns)["__metadata__"])

    return apply


def said(name: str, **entries: Any) -> Callable[[bytes], bytes]:
    """The columns whose header says something else of an array."""

    def apply(columns: bytes) -> bytes:
        header = _header(columns)
        header[name] |= entries
        return _with_header(columns, json.dumps(header).encode())

    return apply


def _header(columns: bytes) -> dict[str, Any]:
    (length,) = struct.unpack("<Q", columns[:8])
    found: dict[str, Any] = json.loads(columns[8 : 8 + length])
    return found


def _with_header(columns: bytes, header: bytes, length: int | None = None) -> bytes:
    (before,) = struct.unpack("<Q", columns[:8])
    return struct.pack("<Q", len(header) if length is None else length) + header + columns[8 + before :]


def with_value(value: int) -> Callable[[np.ndarray], np.ndarray]:
    """Puts a value at the start of an array."""

    def change(array: np.ndarray) -> np.ndarray:
        array.flat[0] = value
        return array

    return change


LIES: dict[str, Callable[[bytes], bytes]] = {
    "a member beyond the tar": changed("offsets", with_value(HUGE)),
    "a member before the tar": changed("offsets", with_value(-2)),
    "a member of 1e18 bytes": changed("sizes", with_value(HUGE)),
    "a member whose end overflows": changed("sizes", with_value(2**63 - 1)),
    "a size below zero": changed("sizes", with_value(-1)),
    "one sample too few": changed("offsets", lambda array: array[1:]),
    "one member too few": changed("sizes", lambda array: array[:, 1:]),
    "flat places": changed("offsets", lambda array: array.ravel()),
    "keys that end early": changed("key_bounds", with_value(5)),
    "keys that end beyond": changed("key_bounds", lambda array: array * HUGE),
    "keys that are no text": changed("keys", with_value(0xFF)),
    "no keys": changed("keys", lambda array: array[:0]),
    "an array of 1e18 numbers": said("offsets", shape=[HUGE, 4]),
    "an array of so many that they overflow": said("offsets", shape=[2**62, 4]),
    "an empty array of 1e18 rows": said("sizes", shape=[HUGE, 0], data_offsets=[0, 0]),
    "an array of 99 dimensions": said("keys", shape=[1] * 99),
    "an array beyond the file": said("sizes", data_offsets=[HUGE, HUGE + 96]),
    "an array before its start": said("sizes", data_offsets=[-96, 0]),
    "an array of another type": said("offsets", dtype="F64"),
    "numbers that are none": said("offsets", shape=["3", 4.0]),
    "no list": said("offsets", data_offsets=None),
    "a header of 1e18 bytes": lambda columns: _with_header(columns, b"{}", HUGE),
    "a header that is no JSON": lambda columns: _with_header(columns, b"\x80\x04."),
    "a header without end": lambda columns: _with_header(columns, b"[" * 900_000),
    "nothing": lambda columns: b"",
}


@pytest.mark.parametrize("lie", LIES)
def test_columns_that_lie_are_refused(data: Path, lie: str) -> None:
    """Before anything of the size that they claim is asked for."""
    believed(data, LIES[lie]((data / COLUMNS).read_bytes()))
    assert refused(data)


@pytest.mark.parametrize(
    "changes",
    [
        {"samples": 10**15, "counts": None},
        {"samples": 2, "counts": None},
        {"bytes": 10**18},
        {"extensions": ("a", "b")},
        {"counts": (("++++", 10**18),)},
        {"sha256": "../../../outside"},
        {"name": "../shard-000000.tar"},
        {"name": "a\0.tar"},
        {"name": "..tar"},
    ],
)
def test_indexes_that_lie_about_a_shard_are_refused(data: Path, changes: dict[str, Any]) -> None:
    """Numbers that nothing can hold, and names that lead out of the folder."""
    believed(data, **changes)
    assert refused(data)


@pytest.mark.parametrize("name", [COLUMNS, "train/shard-000000.tar", "train/index.json"])
@pytest.mark.parametrize("kind", ["another file", "a device", "a pipe", "a folder", "nothing", "itself"])
def test_what_lies_in_the_place_of_a_file_is_refused_at_once(data: Path, name: str, kind: str) -> None:
    """Nobody waits for a pipe, and a link is only as good as what it leads to."""
    path = data / name
    path.unlink()
    if kind == "a pipe":
        os.mkfifo(path)
    elif kind == "a folder":
        path.mkdir()
    elif kind != "nothing":
        path.symlink_to({"another file": "/etc/passwd", "a device": "/dev/zero", "itself": path.name}[kind])
    assert refused(data)


def test_a_link_to_the_very_file_is_read(data: Path, tmp_path: Path) -> None:
    """Data sets are often farms of links."""
    expected = outcome(data)
    for name in (COLUMNS, "train/shard-000000.tar"):
        os.replace(data / name, tmp_path / Path(name).name)
        (data / name).symlink_to(tmp_path / Path(name).name)
    assert expected is not None and outcome(data) == expected


def test_index_lines_without_end_take_no_stack(data: Path) -> None:
    """JSON of any depth."""
    for text in (b"[" * 1_000_000, b'{"version":2,' + b'"a":[' * 500_000, b'{"version":2}\n' + b"{" * 100):
        (data / "train/index.json").write_bytes(text)
        with pytest.raises(ShardError, match="is damaged"):
            load_index(data / "train")
