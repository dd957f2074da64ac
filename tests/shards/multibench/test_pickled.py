"""Pickles are read without running anything that they name, in memory that goes by their size."""

from __future__ import annotations

import collections
import os
import pickle
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmpretrain.data.writing import BuildError
from shards.multibench import pickled
from shards.multibench.pickled import array_at, read_pickle
from tests.shards.multibench.drawn import write_pickle

ARRAYS = {
    "matrix": np.arange(6, dtype=np.float32).reshape(2, 3),
    "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "big end": np.arange(3, dtype=">i4"),
    "truth": np.array([True, False]),
    "empty": np.zeros((0, 4)),
}


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_arrays_of_every_protocol_come_back(tmp_path: Path, protocol: int) -> None:
    path = write_pickle(tmp_path / "a.pkl", {"train": ARRAYS, "names": ["a", ("b", 1)]}, protocol)
    content = read_pickle(path)
    for name, expected in ARRAYS.items():
        found = array_at(path, content, "train", name)
        assert found.dtype == expected.dtype and found.shape == expected.shape
        np.testing.assert_array_equal(found, expected)
    assert content["names"] == ["a", ("b", 1)]


def test_files_of_older_numpy_and_python_are_read(tmp_path: Path) -> None:
    """numpy before 2 called its core otherwise; OrderedDict is a plain dictionary here; lists of numbers are arrays."""
    content = collections.OrderedDict(
        a=ARRAYS["matrix"], numbers=[np.float64(0.5), 2.0], ids=np.array([["x"]], dtype=object)
    )
    data = pickle.dumps(content, protocol=2)
    assert b"numpy._core.multiarray" in data or b"numpy.core.multiarray" in data
    path = tmp_path / "old.pkl"
    path.write_bytes(data.replace(b"numpy._core.multiarray", b"numpy.core.multiarray"))
    found = read_pickle(path)
    np.testing.assert_array_equal(array_at(path, found, "a"), content["a"])
    np.testing.assert_array_equal(array_at(path, found, "numbers"), [0.5, 2.0])
    with pytest.raises(BuildError, match="holds objects, and numbers are needed"):
        array_at(path, found, "ids")


class Hostile:
    """What a pickle that runs code looks like."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self) -> tuple[Any, ...]:
        return self.function, self.arguments


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_a_hostile_pickle_runs_nothing_and_is_named(tmp_path: Path, protocol: int) -> None:
    canary = tmp_path / "canary"
    path = write_pickle(tmp_path / "bad.pkl", {"train": Hostile(os.mkdir, str(canary))}, protocol)
    with pytest.raises(
        BuildError, match=r"bad.pkl: it names posix.mkdir, and only numpy arrays .* nothing of it was run"
    ):
        read_pickle(path)
    assert not canary.exists()


@pytest.mark.parametrize(
    ("function", "arguments", "name"),
    [(eval, ("1",), "builtins.eval"), (np.load, ("x",), "numpy.load"), (getattr, ("a", "upper"), "builtins.getattr")],
)
def test_names_that_are_no_arrays_are_refused(tmp_path: Path, function: Any, arguments: Any, name: str) -> None:
    with pytest.raises(BuildError, match=f"it names {name}"):
        read_pickle(write_pickle(tmp_path / "a.pkl", Hostile(function, *arguments)))


HUGE = 1 << 50
PROMISES = {
    "bytes": b"\x80\x04\x8e" + struct.pack("<Q", HUGE) + b"x.",
    "a bytearray": b"\x80\x05\x96" + struct.pack("<Q", HUGE) + b"x.",
    "a frame": b"\x80\x04\x95" + struct.pack("<Q", HUGE) + b"N.",
    "a text": b"\x80\x04\x8d" + struct.pack("<Q", HUGE) + b"x.",
    "nothing": b"",
    "sets": pickle.dumps({1, 2}),
    "a key that is none": b"\x80\x04}(I1\nI2\ntI1\ns.",
    "an extension": b"\x80\x02\x82\x01.",
    "a state of a function": b"\x80\x04c_codecs\nencode\n}(\x8c\x01a\x8c\x01bub.",
    "a state of a class": b"\x80\x04cnumpy\nndarray\n}(\x8c\x01a\x8c\x01bub.",
    "an array without content": b"\x80\x04}\x8c\x01acnumpy\nndarray\n)\x81s.",
}


@pytest.mark.parametrize("name", PROMISES)
def test_what_a_file_promises_is_refused_before_it_is_allocated(tmp_path: Path, name: str) -> None:
    path = tmp_path / "a.pkl"
    path.write_bytes(PROMISES[name])
    with pytest.raises(BuildError, match=r"a\.pkl"):
        array_at(path, read_pickle(path), "a")


def test_an_array_must_have_the_bytes_of_its_shape(tmp_path: Path) -> None:
    """And the table of what was seen before is no larger than what was."""
    data = pickle.dumps(np.zeros(5, np.float64), protocol=2)
    path = tmp_path / "a.pkl"
    path.write_bytes(data.replace(b"K\x05", b"K\x07"))
    with pytest.raises(BuildError, match=r"its shape is \[7\] and its type f8, but it has 40 bytes"):
        array_at(path, read_pickle(path))
    path.write_bytes(b"\x80\x02}r" + struct.pack("<I", (1 << 32) - 1) + b".")
    assert read_pickle(path) == {}


def test_texts_and_numbers_in_any_number_come_back(tmp_path: Path) -> None:
    """What calls make is counted against the file, which honest files never exceed."""
    content: list[Any] = [[bytes([n % 256]) * (n % 4) for n in range(400)], [np.str_("é" * n) for n in range(1, 50)]]
    content.append([np.float64(n) for n in range(100)])
    content.append([collections.OrderedDict([(n, n)]) for n in range(50)])
    for protocol in (0, 2, 4):
        assert read_pickle(write_pickle(tmp_path / "a.pkl", content, protocol)) == content


def _text(text: str) -> bytes:
    return b"X" + struct.pack("<I", len(text)) + text.encode()


# A function is remembered as 0, its arguments as 1.
COPIES = {
    "texts": b"c_codecs\nencode\nq\0" + _text("a" * 1000) + b"\x85q\1",
    "scalars": b"cnumpy.core.multiarray\nscalar\nq\0cnumpy\ndtype\n"
    + _text("S1000")
    + b"\x85R"
    + _text("a" * 1000)
    + b"\x86q\1",
    "mappings": b"ccollections\nOrderedDict\nq\0(" + b"K\1K\2\x86" * 100 + b"l\x85q\1",
}


@pytest.mark.parametrize("name", COPIES)
def test_calls_that_copy_the_same_again_and_again_are_refused(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pickled, "MOST_OPERATIONS", 10_000)
    path = tmp_path / "a.pkl"
    path.write_bytes(b"\x80\x02" + COPIES[name] + b"h\0h\1R0" + b"N.")
    assert read_pickle(path) is None
    path.write_bytes(b"\x80\x02" + COPIES[name] + b"h\0h\1R0" * 500 + b"N.")
    with pytest.raises(BuildError, match=r"more of its texts than it holds|more than 10000 operations"):
        read_pickle(path)


def _repeated(entry: Any, times: int, levels: int = 1) -> Any:
    for _ in range(levels):
        entry = [entry] * times
    return entry


def _endless(times: int) -> list[Any]:
    content: list[Any] = []
    content.extend([content] * times)
    return content


LISTS = {
    "lists of the same lists": _repeated(0, 100, 5),
    "empty lists": _repeated([], 100, 5),
    "itself": _endless(1),
    "itself, often": _endless(1000),
    "the same array": _repeated(np.zeros(1000), 6000),
    "long texts": [np.array(["a"] * 10), "b" * 1000],
    "what is no number": [[1, None]],
}


@pytest.mark.parametrize("name", LISTS)
def test_a_list_becomes_no_more_numbers_than_could_be_written(tmp_path: Path, name: str) -> None:
    path = write_pickle(tmp_path / "a.pkl", {"a": LISTS[name]})
    with pytest.raises(BuildError, match=r"a\.pkl\['a'\] is no array of numbers \((its lists|it repeats|it holds)"):
        array_at(path, read_pickle(path), "a")


def test_lists_of_lists_and_of_arrays_become_arrays(tmp_path: Path) -> None:
    nested = [[[1], [2]], [[3], [4]]]
    rows = [np.arange(3.0), np.zeros(3), [1, True, np.float32(2)]]
    path = write_pickle(tmp_path / "a.pkl", {"nested": nested, "rows": (*rows, rows[1])})
    content = read_pickle(path)
    np.testing.assert_array_equal(array_at(path, content, "nested"), nested)
    np.testing.assert_array_equal(array_at(path, content, "rows"), np.array([*rows, rows[1]]))


def _made(kind: bytes, shape: bytes) -> bytes:
    return b"\x80\x04}\x8c\x01acnumpy.core.numeric\n_frombuffer\n(C\0" + kind + shape + b"\x8c\x01CtRs."


F8 = b"cnumpy\ndtype\n\x8c\x02f8\x85R"
TRICKS = {
    "a type that is none": _made(F8.replace(b"f8", b"f3"), b"K\0\x85"),
    "a type that was never called": _made(b"cnumpy\ndtype\n)\x81", b"K\0\x85"),
    "a dimension beyond numpy": _made(F8, b"K\0\x8a\x0a" + b"\1" * 10 + b"\x86"),
    "a list with such a type": _made(b"cnumpy\ndtype\n)\x81", b"K\0\x85").replace(b"tRs", b"tR\x85s"),
    "keys of the same hash": b"\x80\x04}I%d\nK\1s." % (2**61 - 1),
    "negative keys of the same hash": b"\x80\x04}I-%d\nK\1s." % (2**61 - 1),
    "places of the same hash": b"}p%d\n." % (2**61 - 1),
}


@pytest.mark.parametrize("name", TRICKS)
def test_types_that_are_none_and_keys_that_collide_are_refused_by_name(tmp_path: Path, name: str) -> None:
    path = tmp_path / "a.pkl"
    path.write_bytes(TRICKS[name])
    with pytest.raises(BuildError, match=r"a\.pkl.*(not read|cannot be read|no entry|no program)"):
        array_at(path, read_pickle(path), "a")


def test_a_program_without_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pickled, "MOST_OPERATIONS", 100)
    with pytest.raises(BuildError, match="more than 100 operations"):
        read_pickle(write_pickle(tmp_path / "a.pkl", [[] for _ in range(200)]))
    monkeypatch.setattr(pickled, "MOST_BYTES", 10)
    with pytest.raises(BuildError, match="more than 10"):
        read_pickle(tmp_path / "a.pkl")


def test_what_is_missing_is_named_with_what_there_is(tmp_path: Path) -> None:
    path = write_pickle(tmp_path / "a.pkl", {"train": {"text": 1}})
    with pytest.raises(BuildError, match=r"has no \['train'\]\['vision'\]: there is text"):
        array_at(path, read_pickle(path), "train", "vision")
    with pytest.raises(BuildError, match=r"\['train'\]\['text'\] is a int, and an array is needed"):
        array_at(path, read_pickle(path), "train", "text")
    with pytest.raises(BuildError, match="cannot be read"):
        read_pickle(tmp_path / "none.pkl")
