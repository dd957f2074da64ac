"""Rows in files: lines of JSON that a build wrote for itself, Parquet, Arrow, and folders that `datasets` saved."""

from __future__ import annotations

import hashlib
import json
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mmpretrain.data.writing import BuildError

MOST_COLUMNS = 1000
ROWS_AT_ONCE = 64  # of images, in memory
PARQUET_BUFFER = 1 << 20  # bytes per column; without one, a whole row group of a column is read at once
WHERE = "__where__"


def require_data_extra() -> None:
    """Raise BuildError with the command that installs `datasets` and `pyarrow`, unless both are there."""
    try:
        import datasets  # noqa: F401
        import pyarrow  # noqa: F401
    except ImportError as error:
        fix = "pip install 'mmpretrain-contrastive[data]'"
        raise BuildError(f"this needs `datasets` and `pyarrow` ({error}): run {fix}") from None


def file_identity(path: Path) -> list[Any]:
    """A file's path, size and time of change: what differs when it was written again."""
    found = path.stat()
    return [str(path.resolve()), found.st_size, found.st_mtime_ns]


@dataclass(frozen=True)
class LineRows:
    """One JSON object per line, found again by its offset. offsets: int64 in a .npy file beside it."""

    path: Path
    columns: tuple[str, ...]
    count: int
    sha256: str

    def __len__(self) -> int:
        return self.count

    def read(self, numbers: np.ndarray, columns: Sequence[str]) -> Iterator[tuple[int, str, dict[str, Any]]]:
        """As Rows."""
        offsets = np.load(offsets_of(self.path), mmap_mode="r")
        with self.path.open("rb") as file:
            for number in numbers.tolist():
                file.seek(int(offsets[number]))
                row = json.loads(file.readline())
                yield number, row[WHERE], row

    def identity(self) -> list[Any]:
        """As Rows."""
        return [self.sha256]


def offsets_of(path: Path) -> Path:
    """Where the offsets of a file of lines lie."""
    return path.with_suffix(".npy")


def spool(rows: Iterable[tuple[str, dict[str, Any]]], path: Path) -> LineRows:
    """Write (where, row) as lines of JSON, so that any number of processes reads any of them in little memory."""
    offsets, columns, digest = array("q"), dict[str, None](), hashlib.sha256()
    with path.open("wb") as file:
        for where, row in rows:
            line = json.dumps({WHERE: where, **row}, default=str).encode() + b"\n"
            offsets.append(file.tell())
            columns.update(dict.fromkeys(row))
            if len(columns) > MOST_COLUMNS:
                raise BuildError(f"{where}: the rows have more than {MOST_COLUMNS} different columns")
            digest.update(line)
            file.write(line)
    np.save(offsets_of(path), np.frombuffer(offsets, np.int64) if len(offsets) else np.empty(0, np.int64))
    return LineRows(path, tuple(columns), len(offsets), digest.hexdigest())


@dataclass(frozen=True)
class ParquetRows:
    """Parquet files one behind the other; a few rows at a time are in memory."""

    paths: tuple[Path, ...]
    columns: tuple[str, ...]
    groups: tuple[tuple[int, ...], ...]
    """Rows of each row group of each file."""

    def __len__(self) -> int:
        return sum(map(sum, self.groups))

    def read(self, numbers: np.ndarray, columns: Sequence[str]) -> Iterator[tuple[int, str, dict[str, Any]]]:
        """As Rows."""
        present = [column for column in columns if column in self.columns]
        if not present:
            yield from _bare(numbers)
            return
        sizes = [sum(groups) for groups in self.groups]
        for place, start, inside in _by_file(sizes, numbers):
            path = self.paths[place]
            for row, values in _parquet_rows(path, self.groups[place], inside, present):
                yield start + row, f"{path.name} row {row + 1}", values

    def identity(self) -> list[Any]:
        """As Rows."""
        return [file_identity(path) for path in self.paths]


def open_parquet(paths: Sequence[Path]) -> ParquetRows:
    """Read the footers of Parquet files. Raises BuildError: one is damaged, or their columns differ."""
    require_data_extra()
    import pyarrow as pa
    import pyarrow.parquet as pq

    groups, columns = [], None
    for path in paths:
        try:
            file = pq.ParquetFile(path)
        except (pa.ArrowException, OSError) as error:
            raise BuildError(f"{path} cannot be read as Parquet ({error})") from None
        with file:
            names = tuple(file.schema_arrow.names)
            groups.append(tuple(file.metadata.row_group(g).num_rows for g in range(file.num_row_groups)))
        if columns is not None and set(names) != set(columns):
            raise BuildError(f"{path} has the columns {', '.join(names)}, but {paths[0]} has {', '.join(columns)}")
        columns = columns or names
    return ParquetRows(tuple(paths), columns or (), tuple(groups))


def _parquet_rows(
    path: Path, groups: Sequence[int], numbers: np.ndarray, columns: list[str]
) -> Iterator[tuple[int, dict[str, Any]]]:
    """(number in the file, row); only the row groups that hold one of ``numbers`` are read."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    with pq.ParquetFile(path, pre_buffer=False, buffer_size=PARQUET_BUFFER) as file:
        start = 0
        for group, count in enumerate(groups):
            wanted = numbers[(numbers >= start) & (numbers < start + count)]
            at = start
            for batch in file.iter_batches(ROWS_AT_ONCE, [group], columns) if len(wanted) else ():
                inside = wanted[(wanted >= at) & (wanted < at + len(batch))]
                if len(inside):
                    yield from zip(inside.tolist(), batch.take(pa.array(inside - at)).to_pylist(), strict=True)
                at += len(batch)
            start += count


@dataclass(frozen=True)
class ArrowRows:
    """Arrow files one behind the other, mapped into memory."""

    paths: tuple[Path, ...]
    columns: tuple[str, ...]
    counts: tuple[int, ...]

    def __len__(self) -> int:
        return sum(self.counts)

    def read(self, numbers: np.ndarray, columns: Sequence[str]) -> Iterator[tuple[int, str, dict[str, Any]]]:
        """As Rows."""
        present = [column for column in columns if column in self.columns]
        if not present:
            yield from _bare(numbers)
            return
        for place, start, inside in _by_file(self.counts, numbers):
            path = self.paths[place]
            table = map_arrow(path).select(present)
            for few in _in_parts(inside):
                for row, values in zip(few.tolist(), table.take(few).to_pylist(), strict=True):
                    yield start + row, f"{path.name} row {row + 1}", values

    def identity(self) -> list[Any]:
        """As Rows."""
        return [file_identity(path) for path in self.paths]


def open_arrow(paths: Sequence[Path]) -> ArrowRows:
    """Arrow files (streams or files). Raises BuildError: one is damaged, or their columns differ."""
    tables = [map_arrow(path) for path in paths]
    columns = tuple(tables[0].column_names)
    for path, table in zip(paths, tables, strict=True):
        if set(table.column_names) != set(columns):
            raise BuildError(f"{path} has other columns than {paths[0]}")
    return ArrowRows(tuple(paths), columns, tuple(len(table) for table in tables))


def map_arrow(path: Path) -> Any:
    """A pyarrow.Table whose bytes stay in the file. Raises BuildError if it is damaged."""
    require_data_extra()
    import pyarrow as pa

    try:
        file = pa.memory_map(str(path))
        is_file = file.read(6) == b"ARROW1"
        file.seek(0)
        return (pa.ipc.open_file(file) if is_file else pa.ipc.open_stream(file)).read_all()
    except (pa.ArrowException, OSError) as error:
        raise BuildError(f"{path} cannot be read as Arrow ({error})") from None


@dataclass(frozen=True)
class SavedRows:
    """A folder that `datasets` saved (``save_to_disk``), undecoded. split: its folder, None if there is only one."""

    path: Path
    split: str | None
    columns: tuple[str, ...]
    count: int

    def __len__(self) -> int:
        return self.count

    def read(self, numbers: np.ndarray, columns: Sequence[str]) -> Iterator[tuple[int, str, dict[str, Any]]]:
        """As Rows."""
        present = [column for column in columns if column in self.columns]
        if not present:
            yield from _bare(numbers)
            return
        data = load_saved(self.path, self.split).select_columns(present).with_format("arrow")
        for few in _in_parts(numbers):
            for number, row in zip(few.tolist(), data[few.tolist()].to_pylist(), strict=True):
                yield number, f"row {number + 1}", row

    def identity(self) -> list[Any]:
        """As Rows."""
        folder = self.path / self.split if self.split else self.path
        return [file_identity(path) for path in sorted(folder.iterdir()) if path.is_file()]


def load_saved(path: Path, split: str | None) -> Any:
    """The datasets.Dataset (or DatasetDict) that was saved there. Raises BuildError if it is damaged."""
    require_data_extra()
    import datasets

    try:
        return datasets.load_from_disk(str(path / split if split else path), keep_in_memory=False)
    except Exception as error:  # damaged files bring pyarrow and json to raise nearly anything
        raise BuildError(f"{path} cannot be opened as a saved dataset ({error})") from None


def _by_file(sizes: Sequence[int], numbers: np.ndarray) -> Iterator[tuple[int, int, np.ndarray]]:
    """(place of a file, its first row among all, which of its own rows are asked for), of files that have any.

    sizes: rows of each file. numbers: int64, sorted, among the rows of all files.
    """
    start = 0
    for place, size in enumerate(sizes):
        inside = numbers[(numbers >= start) & (numbers < start + size)] - start
        if len(inside):
            yield place, start, inside
        start += size


def _bare(numbers: np.ndarray) -> Iterator[tuple[int, str, dict[str, Any]]]:
    """Rows of which no column is asked for: a table without columns would have no rows."""
    yield from ((number, f"row {number + 1}", {}) for number in numbers.tolist())


def _in_parts(numbers: np.ndarray) -> Iterator[np.ndarray]:
    for start in range(0, len(numbers), ROWS_AT_ONCE):
        yield numbers[start : start + ROWS_AT_ONCE]
