"""Keys that every tar and reader takes."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmpretrain.data.index_scan import scan_shard
from mmpretrain.data.writing import write_shard
from shards.sources.keys import key_hash, key_of_path, key_of_text

EXPECTED = {
    "a/b.c/1.tar.gz": "a/b_c/1_tar",
    "../../etc/passwd.txt": "etc/passwd",
    "/abs/1.png": "abs/1",
    "C:\\photos\\1.png": "C_/photos/1",
    "__MACOSX/1.png": "x__MACOSX/1",
    "cafe\u0301/हिन्दी.png": "caf\xe9/हिन्दी",
    "": "_",
}


@pytest.mark.parametrize("path", EXPECTED)
def test_paths_become_keys(path: str) -> None:
    assert key_of_path(path, Path("root")) == EXPECTED[path]


def test_a_path_below_the_root_is_named_from_there() -> None:
    assert key_of_path("/data/photos/a/1.png", Path("/data/photos")) == "a/1"


def test_long_names_stay_different() -> None:
    first, second = key_of_text("a" * 300 + "1"), key_of_text("a" * 300 + "2")
    assert first != second and max(len(first), len(second)) < 250


def test_the_hash_never_changes() -> None:
    assert key_hash("images/7") == 1137499732964128261


@given(text=st.text(max_size=40) | st.text("aé/", min_size=150, max_size=400))
@settings(max_examples=60, deadline=None)
def test_any_text_makes_a_name_that_the_index_reads_back(text: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.getbasetemp() / "keys.tar"
    write_shard(path, [{"__key__": key_of_text(text), "caption.txt": b"x"}])
    (member,) = scan_shard(path).members
    assert (member.key, member.extension) == (key_of_text(text), "caption.txt")
