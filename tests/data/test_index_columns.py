"""Columns are what was packed, or they are refused before anything is taken from them."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmpretrain.data import index_columns
from mmpretrain.data.index_columns import Columns, TarFacts, columns_of, pack, unpack

TAR = TarFacts(10240, "ab" * 32, ("jpg", "txt"))
UNFIT = (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError)


def columns() -> Columns:
    """Of three samples, the second without its first member, the third with an empty one."""
    spans = np.array([[[512, 7], [1536, 3]], [[-1, 0], [2560, 5]], [[3584, 0], [4096, 9]]], np.int64)
    return columns_of(["a", "ü", "folder/c"], spans)


def test_packed_columns_come_back_as_views_of_the_same_bytes() -> None:
    data = pack(columns(), TAR)
    assert data == pack(columns(), TAR)
    tar, found = unpack(data)
    assert tar == TAR and found.all_keys() == ["a", "ü", "folder/c"] and found.key(1) == "ü"
    assert found.offsets.tolist() == [[512, 1536], [-1, 2560], [3584, 4096]] and not found.offsets.flags.owndata
    assert found.patterns() == (("++", 1), ("-+", 1), ("0+", 1))
    assert found.having(("-+", "0+")).tolist() == [1, 2]
    some = found.rows(np.array([2]))
    assert some.all_keys() == ["folder/c"] and some.sizes.tolist() == [[0, 9]]


def test_safetensors_reads_the_file() -> None:
    from safetensors.numpy import load

    found = load(pack(columns(), TAR))
    assert found["key_bounds"].tolist() == [0, 1, 3, 11] and found["keys"].tobytes().decode() == "aüfolder/c"


def test_a_shard_without_samples_has_columns() -> None:
    _, found = unpack(pack(columns_of([], np.empty((0, 0, 2), np.int64)), TAR._replace(extensions=())))
    assert len(found) == 0 and found.patterns() == () and found.all_keys() == [] and found.find("a") is None
    assert found.key_hashes().tolist() == []


def test_members_above_the_limit_have_a_state_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_columns, "MAX_ENCODED_BYTES", 5)
    assert columns().patterns() == (("!+", 1), ("-+", 1), ("0!", 1))


def test_a_key_is_found_only_whole() -> None:
    found = columns_of(["aa", "a", "ba", "b"], np.zeros((4, 1, 2), np.int64))
    assert [found.find(key) for key in ("aa", "a", "ba", "b", "ab", "", "c")] == [0, 1, 2, 3, None, None, None]
    assert found.rows(np.array([1, 3])).find("aa") is None


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=12), max_size=12))
def test_hashes_of_keys_tell_them_apart(keys: list[str]) -> None:
    whole = columns_of(keys, np.zeros((len(keys), 1, 2), np.int64))
    hashes = whole.key_hashes()
    assert len(set(hashes.tolist())) == len(set(keys))
    odd = np.arange(1, len(keys), 2)
    assert np.array_equal(whole.rows(odd).key_hashes(), hashes[odd])


def damaged(change: Callable[[dict], None]) -> bytes:
    """A file whose header was changed."""
    data = pack(columns(), TAR)
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    change(header)
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data[8 + length :]


@pytest.mark.parametrize(
    "change",
    [
        lambda header: header["offsets"].update(shape=[1 << 40, 2]),
        lambda header: header["offsets"].update(shape=[3, 2], data_offsets=[0, 1 << 50]),
        lambda header: header["sizes"].update(shape=[2, 3]),
        lambda header: header["sizes"].update(shape=[-3, -2]),
        lambda header: header["keys"].update(dtype="I64"),
        lambda header: header["key_bounds"].update(shape=[2, 2]),
        lambda header: header["keys"].update(shape=[10], data_offsets=[header["keys"]["data_offsets"][0]] * 2),
        lambda header: header.pop("keys"),
        lambda header: header.update(more=header["keys"]),
        lambda header: header.pop("__metadata__"),
        lambda header: header["__metadata__"].update(shard="[]"),
        lambda header: header["__metadata__"].update(shard=json.dumps({"bytes": "1", "sha256": "", "extensions": []})),
        lambda header: header["__metadata__"].update(shard=json.dumps({**TAR._asdict(), "bytes": 100})),
    ],
)
def test_headers_that_lie_are_refused(change: Callable[[dict], None]) -> None:
    with pytest.raises(UNFIT):
        unpack(damaged(change))


@given(st.data())
def test_any_other_bytes_are_refused_or_lie_within_the_tar(data: st.DataObject) -> None:
    """No bounds but those of the tar and of the keys can be got from a forged file."""
    content = bytearray(pack(columns(), TAR))
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    try:
        tar, found = unpack(
            bytes(content[: data.draw(st.integers(0, len(content)))] if data.draw(st.booleans()) else content)
        )
    except UNFIT:
        return
    assert len(found.all_keys()) == len(found) and found.sizes.shape == (len(found), len(tar.extensions))
    there = found.offsets >= 0
    assert (found.offsets[there] + found.sizes[there] <= tar.bytes).all() and (found.sizes >= 0).all()
