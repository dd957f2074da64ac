"""Pickles of numpy arrays, read without running anything that they name.

A pickle is a program: it names functions and calls them. This reader knows a handful of names, those by which arrays
and plain containers are written, and puts small classes of this file in their place, so that not even numpy's own code
for restoring arrays sees what the file says. Every other name ends the reading before anything was called. Memory goes
by the size of the file: what a file promises and does not hold is refused before it is allocated, and what it names
over and over makes no more than it could have written.
"""

from __future__ import annotations

import math
import pickle
import re
from collections.abc import Callable
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from mmpretrain.data.writing import BuildError

MOST_OPERATIONS = 5_000_000  # an array takes a dozen, whatever its size; each may take some 100 bytes
MOST_BYTES = 16 << 30
MOST_DIMENSIONS = 32  # that numpy has had in all versions
_DTYPE = re.compile(r"b1|[iu][1248]|f(2|4|8|16)|[SU]\d{1,9}|O8?")
_KEYS = (str, bytes, int, float)
_LARGEST_KEY = 1 << 60  # the multiples of 2^61 - 1 all have the same hash
_NUMBERS = (bool, int, float, np.bool_, np.number)
_UNREADABLE = (ValueError, TypeError, AttributeError, OverflowError)


class _Dtype:
    """What stands for ``numpy.dtype``: a type of numbers or texts, and its order of bytes."""

    name = ""  # a program may make one without calling it
    order = "="

    def __init__(self, name: Any = None, align: Any = None, copy: Any = None) -> None:
        if not isinstance(name, str) or not _DTYPE.fullmatch(name):
            raise pickle.UnpicklingError(f"arrays of {name!r} are not read, only those of numbers and texts")
        self.name = name

    def __setstate__(self, state: Any) -> None:
        if not isinstance(state, tuple) or len(state) < 2 or state[1] not in ("<", ">", "|", "="):
            raise pickle.UnpicklingError("a type of numbers has no order of bytes")
        self.order = state[1]

    def numpy(self) -> np.dtype[Any]:
        """The type itself."""
        return np.dtype(self.order + self.name)


class _Array:
    """What stands for ``numpy.ndarray``: shape, type and bytes (or a list of objects), as they are in the file."""

    state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def numpy(self) -> np.ndarray:
        """The array, over the bytes that were read. Raises ValueError for anything but an array of numbers or texts."""
        if not isinstance(self.state, tuple) or len(self.state) != 5:
            raise ValueError("it has no content")
        _, shape, kind, fortran, data = self.state
        return _over(data, kind, shape, "F" if fortran else "C")


def _over(data: Any, kind: Any, shape: Any, order: str) -> np.ndarray:
    if isinstance(data, str):  # as Python 2 wrote bytes
        data = data.encode("latin1")
    fits = isinstance(kind, _Dtype) and kind.name and isinstance(shape, tuple) and len(shape) <= MOST_DIMENSIONS
    if not fits or not all(isinstance(n, int) and n <= MOST_BYTES for n in shape):
        raise ValueError("its type or shape cannot be read")
    if kind.name.startswith("O") or not isinstance(data, (bytes, bytearray)):
        raise ValueError("it holds objects, and numbers are needed")
    if min(shape, default=0) < 0 or math.prod(shape) * kind.numpy().itemsize != len(data):
        raise ValueError(f"its shape is {list(shape)} and its type {kind.name}, but it has {len(data)} bytes")
    return np.frombuffer(data, kind.numpy()).reshape(shape, order="F" if order == "F" else "C")


def _reconstruct(kind: Any, shape: Any, code: Any) -> _Array:
    """``numpy.core.multiarray._reconstruct``: an empty array, whose content follows."""
    if kind is not _Array:
        raise pickle.UnpicklingError("only plain numpy arrays are read")
    return _Array()


def _frombuffer(data: Any, kind: Any, shape: Any, order: Any) -> _Array:
    """``numpy.core.numeric._frombuffer``, as protocol 5 writes arrays."""
    array = _Array()
    array.state = (1, shape, kind, order == "F", data)
    return array


def _scalar(kind: Any, data: Any = b"") -> Any:
    """``numpy.core.multiarray.scalar``: one number."""
    return _over(data, kind, (), "C")[()]


def _encode(text: Any, encoding: Any = "latin1") -> bytes:
    """``_codecs.encode``, by which bytes are written in the older protocols."""
    if not isinstance(text, str) or encoding != "latin1":
        raise pickle.UnpicklingError("bytes are read as latin1 alone")
    return text.encode("latin1")


def _mapping(pairs: Any = ()) -> dict[Any, Any]:
    """``collections.OrderedDict``, as a plain dictionary."""
    found: dict[Any, Any] = {}
    for key, value in pairs:
        _set(found, key, value)
    return found


def _set(mapping: Any, key: Any, value: Any) -> None:
    # Other keys may take as long to hash, or to tell apart, as their author likes.
    large = isinstance(key, int) and not -_LARGEST_KEY < key < _LARGEST_KEY
    if type(mapping) is not dict or not isinstance(key, _KEYS) or large:
        raise pickle.UnpicklingError("it sets what is no entry of a plain dictionary")
    mapping[key] = value


def _nothing() -> bytes:
    """``bytes()``, by which the older protocols write no bytes."""
    return b""


_NAMES: dict[tuple[str, str], Callable[..., Any]] = {
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Dtype,
    ("_codecs", "encode"): _encode,
    ("__builtin__", "bytes"): _nothing,
    ("builtins", "bytes"): _nothing,
    ("collections", "OrderedDict"): _mapping,
}
for _core in ("numpy.core", "numpy._core"):
    _NAMES[f"{_core}.multiarray", "_reconstruct"] = _reconstruct
    _NAMES[f"{_core}.multiarray", "scalar"] = _scalar
    _NAMES[f"{_core}.numeric", "_frombuffer"] = _frombuffer


# Functions that copy a text, and which of their arguments that is.
_COPIED: dict[Callable[..., Any], int] = {_encode: 0, _scalar: 1}


class _Counted(dict[int, Any]):
    """The operations by their codes; counts how often one is asked for."""

    count = 0

    def __getitem__(self, code: int) -> Any:
        self.count += 1
        if self.count > MOST_OPERATIONS:
            raise pickle.UnpicklingError(f"it has more than {MOST_OPERATIONS} operations: this is no file of arrays")
        return super().__getitem__(code)


class _Bounded:
    """A file that never reads more than it has left."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file, self._left = file, size

    def read(self, count: int = -1) -> bytes:
        """``count`` bytes. Raises UnpicklingError if there are fewer."""
        if not 0 <= count <= self._left:
            raise pickle.UnpicklingError("it was cut off, or promises more than it holds")
        self._left -= count
        return self._file.read(count)

    def readline(self) -> bytes:
        """Up to the end of a line."""
        line = self._file.readline(self._left)
        self._left -= len(line)
        return line


# Python's own reader in Python: the one in C sizes a table by a number that the file says. It is not typed.
_PurePython: Any = pickle._Unpickler


class _Reader(_PurePython):
    """Knows the names of ``_NAMES``, dictionaries whose keys are plain, and no set."""

    def __init__(self, file: _Bounded, size: int) -> None:
        super().__init__(file, encoding="latin1")
        self._to_copy = size
        self.dispatch: Any = _Counted(_PurePython.dispatch)
        self.dispatch[pickle.BYTEARRAY8[0]] = _Reader._bytearray
        self.dispatch[pickle.SETITEM[0]] = _Reader._setitem
        self.dispatch[pickle.SETITEMS[0]] = _Reader._setitems
        self.dispatch[pickle.PUT[0]] = _Reader._put
        self.dispatch[pickle.DICT[0]] = _Reader._dict
        self.dispatch[pickle.BUILD[0]] = _Reader._build
        for code in (pickle.EMPTY_SET, pickle.FROZENSET, pickle.ADDITEMS):
            self.dispatch[code[0]] = _Reader._refuse

    def find_class(self, module: str, name: str) -> Any:
        """Raises BuildError for every name but those of arrays and plain containers."""
        found = _NAMES.get((module, name))
        if found is None:
            raise BuildError(f"it names {module}.{name}, and only numpy arrays and plain containers are read")
        return found if isinstance(found, type) else partial(self._call, found)

    def _call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """What a function makes. A text may be named again and again, and written only once: what all calls copy of
        texts is no more than the file, and the entries of mappings count as operations (checked at the next one)."""
        if function is _mapping:
            self.dispatch.count += sum(map(len, arguments))
        elif function in _COPIED:
            self._to_copy -= sum(map(len, arguments[_COPIED[function] :][:1]))
        if self._to_copy < 0:
            raise pickle.UnpicklingError("it makes more of its texts than it holds")
        return function(*arguments)

    def get_extension(self, code: int) -> Any:
        """Raises BuildError: what a number stands for is up to other programs."""
        raise BuildError(f"it names the extension {code}, and only numpy arrays and plain containers are read")

    def _bytearray(self) -> None:
        self.append(bytearray(self.read(int.from_bytes(self.read(8), "little"))))

    def _put(self) -> None:
        place = int(self.readline()[:-1])
        if not 0 <= place < _LARGEST_KEY:
            raise pickle.UnpicklingError("it remembers something at a place that no program would take")
        self.memo[place] = self.stack[-1]

    def _dict(self) -> None:
        items = self.pop_mark()
        self.append({})
        self._put_all(items)

    def _setitem(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        _set(self.stack[-1], key, value)

    def _setitems(self) -> None:
        self._put_all(self.pop_mark())

    def _put_all(self, items: list[Any]) -> None:
        for key, value in zip(items[::2], items[1::2], strict=True):
            _set(self.stack[-1], key, value)

    def _build(self) -> None:
        state = self.stack.pop()
        if not isinstance(self.stack[-1], (_Array, _Dtype)):
            raise pickle.UnpicklingError("it gives a state to what is no array")
        self.stack[-1].__setstate__(state)

    def _refuse(self) -> None:
        raise pickle.UnpicklingError("it holds sets, and only plain containers are read")


def read_pickle(path: Path) -> Any:
    """What a pickle holds, as :func:`array_at` reads it; nothing of it is run.

    Raises BuildError: it is no such file, too large or damaged, or names anything but arrays and plain containers (then
    the message says what).
    """
    try:
        size = path.stat().st_size
        if size > MOST_BYTES:
            raise BuildError(f"has {size} bytes, more than {MOST_BYTES}")
        with path.open("rb") as file:
            return _Reader(_Bounded(file, size), size).load()
    except OSError as error:
        raise BuildError(f"{path} cannot be read ({error.strerror})") from None
    except BuildError as error:
        raise BuildError(f"{path}: {error}; nothing of it was run") from None
    except Exception as error:  # a damaged program fails in any way
        raise BuildError(f"{path} is no pickle of arrays ({type(error).__name__}: {error})") from None


def array_at(path: Path, content: Any, *names: str) -> np.ndarray:
    """The array of numbers below ``names``. Raises BuildError: there is none; the message says what there is."""
    where = "".join(f"[{name!r}]" for name in names)
    for name in names:
        if not isinstance(content, dict) or name not in content:
            there = ", ".join(map(str, list(content)[:20])) if isinstance(content, dict) else type(content).__name__
            raise BuildError(f"{path} has no {where}: there is {there}")
        content = content[name]
    if isinstance(content, (list, tuple)):
        return _of_list(path, where, content)
    if not isinstance(content, _Array):
        raise BuildError(f"{path}{where} is a {type(content).__name__}, and an array is needed")
    try:
        return content.numpy()
    except _UNREADABLE as error:
        raise BuildError(f"{path}{where}: {error}") from None


def _of_list(path: Path, where: str, content: Any) -> np.ndarray:
    try:
        rows = _rows(content)
        _check_nested(rows)
        found = np.array(rows)
    except _UNREADABLE as error:
        raise BuildError(f"{path}{where} is no array of numbers ({error})") from None
    if found.dtype.kind not in "biuf":
        raise BuildError(f"{path}{where} is no array of numbers")
    return found


def _rows(content: list[Any] | tuple[Any, ...]) -> list[Any]:
    """The entries of a list, arrays as such. Raises ValueError if repeated arrays have too many numbers."""
    rows: list[Any] = []
    seen: set[int] = set()
    repeated = 0
    for entry in content:
        if not isinstance(entry, _Array):
            rows.append(entry)
            continue
        values, data = entry.numpy(), id(entry.state[4])
        if values.dtype.kind not in "biuf":
            raise ValueError(f"it holds an array of {values.dtype}")
        repeated += values.size if data in seen else 0
        if repeated > MOST_OPERATIONS:
            raise ValueError(f"it repeats arrays, more than {MOST_OPERATIONS} numbers in all")
        seen.add(data)
        rows.append(values)
    return rows


def _check_nested(rows: list[Any]) -> None:
    """Raises ValueError for lists of anything but numbers, and for those that hold each other without end."""
    count, level = 0, rows
    for _ in range(MOST_DIMENSIONS):
        for kind in set(map(type, level)):
            if not issubclass(kind, (*_NUMBERS, list, tuple, np.ndarray)):
                raise ValueError(f"it holds a {kind.__name__.lstrip('_')}")
        lists = [entry for entry in level if isinstance(entry, (list, tuple))]
        if not lists:
            return
        count += sum(map(len, lists))
        if count > MOST_OPERATIONS:
            raise ValueError(f"its lists have more than {MOST_OPERATIONS} entries, counted as often as they are named")
        level = list(chain.from_iterable(lists))
    raise ValueError(f"its lists lie more than {MOST_DIMENSIONS} deep in each other")
