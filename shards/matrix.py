"""Numbers from CSV files, with errors that name file, row and column."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

import numpy as np

from mmpretrain.data.writing import BuildError


def find_csv(folder: Path, stem: str) -> Path | None:
    """``stem.csv`` or ``stem.csv.gz``, None if there is neither. Raises BuildError if there are both."""
    found = [path for path in (folder / f"{stem}.csv", folder / f"{stem}.csv.gz") if path.exists()]
    if len(found) == 2:
        raise BuildError(f"{found[0]} is there with and without .gz: remove one")
    return found[0] if found else None


def _rows(path: Path) -> list[list[str]]:
    """Cells of every line that is not blank."""
    opener = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rt", encoding="utf-8-sig") as file:
            rows = [line.strip().split(",") for line in file if line.strip()]
    except (OSError, EOFError, UnicodeDecodeError, zlib.error) as error:
        raise BuildError(f"{path} cannot be read ({error})") from None
    if not rows:
        raise BuildError(f"{path} is empty: expected one row per sample")
    return rows


def read_matrix(path: Path) -> tuple[np.ndarray, list[str] | None]:
    """float32 [rows, columns] and the header, if there is one.

    Raises:
        BuildError: rows of different lengths, a cell that is no finite number, or an unreadable file.
    """
    rows = _rows(path)
    header = None if any(_is_number(cell) for cell in rows[0]) else [cell.strip().strip('"') for cell in rows[0]]
    _refuse_numbers_of_pandas(path, rows[0], named=header is not None)
    first = 0 if header is None else 1
    width = len(rows[0])
    if len(rows) == first:
        raise BuildError(f"{path} has only a header: expected one row per sample")
    values = np.empty((len(rows) - first, width))
    for at, cells in enumerate(rows[first:]):
        where = f"{path} row {at + first + 1}"
        if len(cells) != width:
            raise BuildError(f"{where} has {len(cells)} columns: expected shape {values.shape}, as the first row says")
        for column, cell in enumerate(cells):
            if not _is_number(cell):
                raise BuildError(f"{where} column {column + 1}: {cell!r} is no number; fill in missing values first")
        values[at] = [float(cell) for cell in cells]
    with np.errstate(over="ignore"):  # becomes inf, which is refused by name
        single = values.astype(np.float32)
    _refuse_non_finite(path, single, first)
    return single, header


def _refuse_numbers_of_pandas(path: Path, cells: list[str], *, named: bool) -> None:
    """pandas writes a column of row numbers where it is not asked not to, and numbers columns that have no names."""
    names = [cell.strip().strip('"') for cell in cells]
    if named and any(not name or name.startswith("Unnamed: ") for name in names):
        raise BuildError(f"{path} has a column without a name, as row numbers have: write it with index=False")
    if len(names) > 1 and names == [str(number) for number in range(len(names))]:
        raise BuildError(f"{path} begins with 0, 1, 2, ..., the numbers of its columns: write it with header=False")


def _refuse_non_finite(path: Path, values: np.ndarray, first: int) -> None:
    bad = np.argwhere(~np.isfinite(values))
    if len(bad):
        row, column = bad[0].tolist()
        raise BuildError(
            f"{path} row {row + first + 1} column {column + 1}: {values[row, column]} ({len(bad)} such values):"
            " fill in missing values first"
        )


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def read_feature_names(folder: Path, number: int, columns: int) -> list[str] | None:
    """Names of a view's columns from ``N_featname.csv[.gz]``, with or without a header line.

    Raises:
        BuildError: another number of names than columns.
    """
    path = find_csv(folder, f"{number}_featname")
    if path is None:
        return None
    names = [",".join(cells).strip('"') for cells in _rows(path)]
    if len(names) not in (columns, columns + 1):
        raise BuildError(f"{path} has {len(names)} names: expected {columns}, one per column of view {number}")
    return names[-columns:]
