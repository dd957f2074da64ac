"""The columns of one shard, keys and places of members: as arrays, and as a safetensors file (no torch here).

    key_bounds      int64 [samples + 1]             key i is bytes [key_bounds[i], key_bounds[i + 1]) of keys
    offsets, sizes  int64 [samples, extensions]     of each member in the tar, in bytes; -1 and 0 where there is none
    keys            uint8 [bytes]                   UTF-8 of all keys, one behind the other

The file's metadata says of which tar they are, so that an index can be put together from them.
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np

from mmpretrain.data.decode import MAX_ENCODED_BYTES

ABSENT, EMPTY, THERE, LARGE = "-", "0", "+", "!"

ABOUT = "shard"  # the one entry of the metadata: safetensors gives several no fixed order
LONGEST_HEADER = 1 << 20
DTYPES: dict[str, tuple[str, np.dtype[Any]]] = {
    "key_bounds": ("I64", np.dtype("<i8")),
    "offsets": ("I64", np.dtype("<i8")),
}
DTYPES |= {"sizes": ("I64", np.dtype("<i8")), "keys": ("U8", np.dtype("u1"))}
_BASE = 0x9E3779B97F4A7C15  # odd, its bits look random: of the hash of keys


class TarFacts(NamedTuple):
    """Of the tar behind some columns: its bytes, their sha256, and what follows the keys in the names of members."""

    bytes: int
    sha256: str
    extensions: tuple[str, ...]


class OfTar(Protocol):
    """What says of which tar it is."""

    @property
    def name(self) -> str:
        """Of the tar."""

    @property
    def bytes(self) -> int:
        """Of the tar."""

    @property
    def sha256(self) -> str:
        """Of the tar."""

    @property
    def extensions(self) -> tuple[str, ...]:
        """What follows the keys in the names of members."""


@dataclass(frozen=True, eq=False)
class Columns:
    """Keys and members of a shard's samples, or of some of them; the arrays may be views of a mapped file.

    keys: uint8, of all samples. begins, ends: int64 [samples], of each key in ``keys``. offsets, sizes: int64 [samples,
    extensions].
    """

    keys: np.ndarray
    begins: np.ndarray
    ends: np.ndarray
    offsets: np.ndarray
    sizes: np.ndarray

    def __len__(self) -> int:
        return len(self.offsets)

    def key(self, row: int) -> str:
        """The row-th sample's key."""
        return self.keys[self.begins[row] : self.ends[row]].tobytes().decode()

    def all_keys(self) -> list[str]:
        """All keys, in order."""
        text = self.keys.tobytes()
        return [text[begin:end].decode() for begin, end in zip(self.begins.tolist(), self.ends.tolist(), strict=True)]

    def keys_of(self, rows: np.ndarray) -> list[str]:
        """The keys of these rows (int64 [k]), in their order."""
        text = self.keys.data  # a copy of all keys of a large shard takes longer than the few that are wanted
        spans = zip(self.begins[rows].tolist(), self.ends[rows].tolist(), strict=True)
        return [str(text[begin:end], "utf-8") for begin, end in spans]

    def find(self, key: str) -> int | None:
        """The row of a key, None if it is not here."""
        text, wanted, at = self.keys.tobytes(), key.encode(errors="replace"), -1
        while (at := text.find(wanted, at + 1)) >= 0:
            row = int(np.searchsorted(self.begins, at))
            if row < len(self) and self.begins[row] == at and self.ends[row] == at + len(wanted):
                return row
        return None

    def states(self) -> np.ndarray:
        """bytes [samples]: a letter per extension; absent ``-``, empty ``0``, too large ``!``, else ``+``."""
        codes = np.full(self.sizes.shape, ord(THERE), np.uint8)
        codes[self.sizes == 0] = ord(EMPTY)
        codes[self.sizes > MAX_ENCODED_BYTES] = ord(LARGE)
        codes[self.offsets < 0] = ord(ABSENT)
        return codes.view(f"S{self.sizes.shape[1]}").ravel() if codes.size else np.zeros(len(self), "S1")

    def patterns(self) -> tuple[tuple[str, int], ...]:
        """The different ``states`` and how many samples have each, sorted."""
        found, counts = np.unique(self.states(), return_counts=True)
        return tuple(zip((state.decode() for state in found.tolist()), counts.tolist(), strict=True))

    def having(self, patterns: tuple[str, ...]) -> np.ndarray:
        """int64: the rows whose states are one of these."""
        return np.flatnonzero(np.isin(self.states(), np.array(patterns, "S")))

    def rows(self, chosen: np.ndarray) -> Columns:
        """The columns of these rows alone."""
        return Columns(self.keys, self.begins[chosen], self.ends[chosen], self.offsets[chosen], self.sizes[chosen])

    def key_hashes(self) -> np.ndarray:
        """uint64 [samples]: equal for equal keys, and hardly ever for others; the same in every process."""
        lengths = self.ends - self.begins
        stops = np.cumsum(lengths)
        inside = np.arange(int(lengths.sum())) - np.repeat(stops - lengths, lengths)
        letters = self.keys[np.repeat(self.begins, lengths) + inside].astype(np.uint64) + np.uint64(1)
        powers = np.cumprod(np.full(int(lengths.max(initial=0)), _BASE, np.uint64))
        sums = np.concatenate([np.zeros(1, np.uint64), np.cumsum(letters * powers[inside], dtype=np.uint64)])
        return sums[stops] - sums[stops - lengths]


def columns_of(keys: list[str], spans: np.ndarray) -> Columns:
    """Columns in memory. spans: int64 [samples, extensions, 2], (offset, size). Raises ValueError for odd keys."""
    encoded = [key.encode() for key in keys]
    bounds = np.cumsum([0, *map(len, encoded)], dtype=np.int64)
    blob = np.frombuffer(b"".join(encoded), np.uint8)
    offsets, sizes = np.ascontiguousarray(spans[..., 0]), np.ascontiguousarray(spans[..., 1])
    return Columns(blob, bounds[:-1], bounds[1:], offsets, sizes)


def pack(columns: Columns, tar: TarFacts) -> bytes:
    """The file of all columns of a shard; the same bytes for the same tar."""
    from safetensors.numpy import save

    bounds = np.concatenate([np.zeros(1, np.int64), columns.ends])
    tensors = {"key_bounds": bounds, "offsets": columns.offsets, "sizes": columns.sizes, "keys": columns.keys}
    about = json.dumps(tar._asdict(), sort_keys=True, separators=(",", ":"))
    return save(tensors, metadata={ABOUT: about})


def unpack(buffer: Any) -> tuple[TarFacts, Columns]:
    """What :func:`pack` wrote, as views of ``buffer`` (bytes or a map). Raises ValueError for anything else."""
    header, start = _header(buffer)
    tar = _tar_facts(header.pop("__metadata__")[ABOUT])
    if set(header) != set(DTYPES):
        raise ValueError("its columns have other names")
    arrays = {name: _array(buffer, start, name, entry) for name, entry in header.items()}
    bounds = arrays["key_bounds"]
    samples = len(bounds) - 1
    shape = (samples, len(tar.extensions))
    if bounds.ndim != 1 or samples < 0 or arrays["offsets"].shape != shape or arrays["sizes"].shape != shape:
        raise ValueError("its columns do not fit together")
    columns = Columns(arrays["keys"], bounds[:-1], bounds[1:], arrays["offsets"], arrays["sizes"])
    check(columns, tar.bytes)
    return tar, columns


def check(columns: Columns, tar_bytes: int) -> None:
    """Raises ValueError unless every key is a text and every member lies inside a tar of so many bytes."""
    begins, ends, keys = columns.begins, columns.ends, columns.keys
    if len(columns) and (begins[0] != 0 or ends[-1] != len(keys) or (ends < begins).any() or keys.ndim != 1):
        raise ValueError("its keys have no proper bounds")
    keys.tobytes().decode()
    if (keys[begins[begins < len(keys)]] & 0xC0 == 0x80).any():
        raise ValueError("a key begins inside of a character")
    offsets, sizes = columns.offsets, columns.sizes
    outside = (offsets < -1).any() or (sizes < 0).any() or (offsets > tar_bytes - sizes).any()
    if outside or sizes[offsets < 0].any():
        raise ValueError("a member lies outside of its tar")


def _header(buffer: Any) -> tuple[dict[str, Any], int]:
    """The header of a safetensors file, and where the data begins."""
    if len(buffer) < 8:
        raise ValueError("it has no header")
    (length,) = struct.unpack("<Q", buffer[:8])
    if length > min(LONGEST_HEADER, len(buffer) - 8):
        raise ValueError("its header claims an impossible size")
    header = json.loads(bytes(buffer[8 : 8 + length]))
    if not isinstance(header, dict) or not isinstance(header.get("__metadata__"), dict):
        raise ValueError("its header is none of columns")
    return header, 8 + length


def _tar_facts(text: str) -> TarFacts:
    record = json.loads(text)
    tar = TarFacts(record["bytes"], record["sha256"], tuple(record["extensions"]))
    if type(tar.bytes) is not int or not isinstance(tar.sha256, str) or not all(isinstance(e, str) for e in tar[2]):
        raise ValueError("it does not say of which tar it is")
    return tar


def _array(buffer: Any, start: int, name: str, entry: dict[str, Any]) -> np.ndarray:
    """One column as a view of the file; its shape is believed only if the bytes are there."""
    kind, dtype = DTYPES[name]
    begin, stop = entry["data_offsets"]
    shape = tuple(entry["shape"])
    if entry["dtype"] != kind or not all(type(n) is int and n >= 0 for n in (*shape, begin, stop)):
        raise ValueError(f"{name} has another type")
    count = 1
    for size in shape:
        count *= size
    if count * dtype.itemsize != stop - begin or start + stop > len(buffer):
        raise ValueError(f"{name} is cut off")
    return np.frombuffer(buffer, dtype, count, start + begin).reshape(shape)
