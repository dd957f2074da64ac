"""A folder of embedding shards that ranks fill without talking to one another (no torch here).

    OUT/dataset.json                what the data set is, and what its vectors were made from
    OUT/SPLIT/origin.json           which samples stand behind which shard
    OUT/SPLIT/shard-000000.tar      samples [0, k) of the source; shard i: [i k, (i + 1) k)
    OUT/SPLIT/index.json, columns/  written when every shard is there

A shard gets its name when it is complete and on the disk. So whoever was killed left whole shards or nothing, and the
same command, on as many ranks as one likes, makes those that are missing. Both JSON files stand before the first shard;
a command that would write other ones is refused.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mmpretrain.data.column_shards import Table, write_columns
from mmpretrain.data.index import INDEX_NAME, INFO_NAME, Index, ShardError, build_index, load_index, read_text
from mmpretrain.data.index_build import keep_columns
from mmpretrain.data.info import DatasetInfo
from mmpretrain.data.kinds.rows import DTYPES
from mmpretrain.data.writing import RawSample, npy, write_shard
from mmpretrain.embedding.jobs import ShardForm
from mmpretrain.files import replace_text, sync

ORIGIN_NAME = "origin.json"


@dataclass(frozen=True)
class SplitOrigin:
    """What a split is made from: fingerprints of the source's indexes, how many samples, and how many per shard.

    form: of the shards; what is not said is one file per sample and modality, as in versions 0.1 and earlier.
    """

    sources: dict[str, str]
    samples: int
    samples_per_shard: int
    form: ShardForm = ShardForm.samples

    def to_json(self) -> str:
        """Text of origin.json."""
        content = asdict(self)
        if self.form is ShardForm.samples:
            del content["form"]
        return json.dumps(content, indent=1) + "\n"


class Output:
    """One split in the making.

    Raises:
        ShardError: the folder holds something else, or the same made from other sources.
    """

    def __init__(self, out: str | Path, split: str, info: DatasetInfo, origin: SplitOrigin) -> None:
        self.root, self.folder, self.origin = Path(out), Path(out) / split, origin
        self.root.mkdir(parents=True, exist_ok=True)
        # Listed first: what another rank has made meanwhile comes after its dataset.json.
        others = sorted(path.name for path in self.root.iterdir() if not path.name.startswith("."))
        if others and not (self.root / INFO_NAME).exists():
            raise ShardError(f"{self.root} holds {others[0]!r} and no {INFO_NAME}: choose another --out, or empty it")
        _state(self.root / INFO_NAME, info.to_json())
        self.folder.mkdir(exist_ok=True)
        _state(self.folder / ORIGIN_NAME, origin.to_json())

    @property
    def shards(self) -> int:
        """How many there will be."""
        return -(-self.origin.samples // self.origin.samples_per_shard)

    def missing(self) -> list[int]:
        """Numbers of the shards that are not there yet."""
        return [number for number in range(self.shards) if not self._path(number).exists()]

    def rows(self, number: int) -> range:
        """The source samples behind a shard."""
        size = self.origin.samples_per_shard
        return range(number * size, min((number + 1) * size, self.origin.samples))

    def write(self, number: int, table: Table) -> None:
        """Write a shard in the split's form, whole or not at all."""
        path = self._path(number)
        temporary = path.with_name(f".{path.name}.{socket.gethostname()}.{os.getpid()}.tmp")
        if self.origin.form is ShardForm.samples:
            write_shard(temporary, samples_of(table))
            known = None
        else:
            known = write_columns(temporary, table)
        os.replace(temporary, path)
        sync(self.folder)
        if known is not None:
            keep_columns(path, *known)

    def finish(self, changed: bool, accept: Callable[[Index], None] | None = None) -> Index | None:
        """The index, once every shard is there (None until then). changed: whether this process wrote any.

        accept: raises if what is there will not do; then no index is left that was not there before.
        """
        if self.missing():
            return None
        for leftover in self.folder.glob(".shard-*.tmp"):
            leftover.unlink(missing_ok=True)
        whole = (self.folder / INDEX_NAME).exists() and not changed
        index = load_index(self.folder) if whole else build_index(self.folder)
        try:
            if accept is not None:
                accept(index)
        except Exception:
            if not whole:
                (self.folder / INDEX_NAME).unlink(missing_ok=True)
            raise
        return index

    def _path(self, number: int) -> Path:
        return self.folder / f"shard-{number:06d}.tar"


def embedded_from(folder: str | Path) -> str | None:
    """Fingerprint of the data behind a split of embedding shards; None if nothing says so.

    Raises ShardError if its origin.json is damaged.
    """
    return _sources(folder).get("data")


def known_as(out: str | Path, split: str, indexes: Mapping[str, Index]) -> dict[str, str]:
    """The fingerprints of a split's sources, by name: as its origin.json has them, where they are of these indexes.

    Earlier versions had others of the same data, and what they began is finished. Raises ShardError if origin.json is
    damaged.
    """
    said = _sources(Path(out) / split)
    found = {}
    for name, index in indexes.items():
        before = said.get(name)
        found[name] = before if before is not None and index.is_known_as(before) else index.fingerprint
    return found


def form_of(out: str | Path, split: str, asked: ShardForm | None) -> ShardForm:
    """The form of a split's shards: as asked, else as its origin.json says, else columns.

    Raises ShardError if origin.json is damaged.
    """
    if asked is not None:
        return asked
    said = _origin(Path(out) / split)
    try:
        return ShardForm.columns if said is None else ShardForm(said.get("form", ShardForm.samples))
    except ValueError as error:
        raise ShardError(f"{Path(out) / split / ORIGIN_NAME} is damaged ({error}): choose another --out") from None


def samples_of(table: Table) -> Iterator[RawSample]:
    """The samples of a table, as members of an ordinary shard: vectors as ``.npy``."""
    places = {name: None if column.has is None else np.cumsum(column.has) - 1 for name, column in table.columns.items()}
    for row, key in enumerate(table.keys):
        sample: RawSample = {"__key__": key}
        for name, column in table.columns.items():
            if column.has is not None and not column.has[row]:
                continue
            value = column.rows[row if (place := places[name]) is None else place[row]]
            member, _, suffix = name.rpartition(".")
            raw = suffix in DTYPES
            sample[f"{member}.npy" if raw else name] = npy(value) if raw else bytes(value).strip()
        yield sample


def _sources(folder: str | Path) -> dict[str, str]:
    """What origin.json says that a split was made from; {} where there is none. Raises ShardError if it is damaged."""
    said = _origin(folder)
    found = {} if said is None else said.get("sources")
    if not isinstance(found, dict):
        raise ShardError(f"{folder}/{ORIGIN_NAME} is damaged (no sources): embed the data again")
    return found


def _origin(folder: str | Path) -> dict[str, Any] | None:
    """origin.json of a split; None where there is none. Raises ShardError if it is damaged."""
    source = f"{str(folder).rstrip('/')}/{ORIGIN_NAME}"
    try:
        found = json.loads(read_text(source))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except ValueError as error:
        raise ShardError(f"{source} is damaged ({error}): embed the data again") from None
    if not isinstance(found, dict):
        raise ShardError(f"{source} is damaged (no object): embed the data again")
    return found


def _state(path: Path, text: str) -> None:
    """Write a file, or check that it already says the same. Raises ShardError if it does not."""
    try:
        found = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        replace_text(path, text)
        return
    if found != text:
        key, there, wanted = _difference(found, text)
        raise ShardError(
            f"{path} says {key} is {there}, and this command would make it {wanted}: choose another --out, or remove"
            f" {path.parent}"
        )


def _difference(found: str, text: str) -> tuple[str, Any, Any]:
    """The first key whose values differ, and both values as JSON."""
    try:
        there = _flat(json.loads(found))
    except (ValueError, AttributeError):
        return "its content", "not readable", "new"
    wanted = _flat(json.loads(text))
    key = next(key for key in {**wanted, **there} if there.get(key) != wanted.get(key))
    return key, json.dumps(there.get(key)), json.dumps(wanted.get(key))


def _flat(value: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested objects as one, keys joined by dots."""
    found: dict[str, Any] = {}
    for key, entry in value.items():
        found |= _flat(entry, f"{prefix}{key}.") if isinstance(entry, dict) and entry else {f"{prefix}{key}": entry}
    return found
