"""Tables that are text: CSV, TSV, JSON lines and JSON, row by row, nothing guessed about their values."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from mmpretrain.data.writing import BuildError
from shards.sources.findings import Findings

SUFFIXES = (".csv", ".tsv", ".txt", ".jsonl", ".ndjson", ".json")
DELIMITERS = ",;\t|"
LONGEST_CELL = 64 << 20
UTF16 = (b"\xff\xfe", b"\xfe\xff")

LocatedRow = tuple[str, dict[str, Any]]


def read_lines(path: Path, findings: Findings) -> Iterator[LocatedRow]:
    """(where, column -> value) of every row. Cells of CSV and TSV stay the texts that they are.

    findings: gets rows that are left out, because they do not fit the header or are no JSON object.
    Raises BuildError: the file is not text in UTF-8 (or UTF-16 with a byte order mark), or has no usable header.
    """
    suffix = path.suffix.lower()
    try:
        if suffix in (".csv", ".tsv", ".txt"):
            yield from _read_csv(path, findings)
        elif suffix == ".json":
            yield from _read_json(path, findings)
        else:
            yield from _read_json_lines(path, findings)
    except UnicodeDecodeError as error:
        raise BuildError(f"{path} is not UTF-8 ({error.reason} at byte {error.start}): save it as UTF-8") from None


def _encoding(path: Path) -> str:
    with path.open("rb") as file:
        return "utf-16" if file.read(2) in UTF16 else "utf-8-sig"


def _read_csv(path: Path, findings: Findings) -> Iterator[LocatedRow]:
    csv.field_size_limit(LONGEST_CELL)
    with path.open(encoding=_encoding(path), newline="") as file:
        first = file.readline()
        counts = {delimiter: first.count(delimiter) for delimiter in DELIMITERS}
        delimiter = "\t" if path.suffix.lower() == ".tsv" else max(counts, key=lambda d: counts[d])
        file.seek(0)
        plain = delimiter == "\t" and not _is_quoted(file)
        file.seek(0)
        form: dict[str, Any] = {"delimiter": delimiter, "quoting": csv.QUOTE_NONE if plain else csv.QUOTE_MINIMAL}
        rows = _cells(path, csv.reader(file, strict=True, **form))
        header = [name.strip() for name in next(rows, ("", []))[1]]
        _check_header(path, header)
        for where, cells in rows:
            if len(cells) == len(header):
                yield where, dict(zip(header, cells, strict=True))
            elif cells:
                findings.add("rows with more or fewer cells than the header", f"{where}: {len(cells)} cells")


def _is_quoted(file: Iterable[str]) -> bool:
    """Whether cells in quotes are meant in a table of tabs, whose usual form has none: then every quote that opens a
    cell is closed, and no cell holds both a tab and the end of a line, as one that swallowed others would."""
    try:
        return not any(
            "\t" in cell and "\n" in cell for row in csv.reader(file, delimiter="\t", strict=True) for cell in row
        )
    except csv.Error:
        return False


def _cells(path: Path, reader: Any) -> Iterator[tuple[str, list[str]]]:
    """(where, cells) of every row. Raises BuildError, naming its first line, for one whose quotes do not close."""
    while True:
        begins = reader.line_num + 1
        try:
            cells = next(reader, None)
        except csv.Error as error:
            raise BuildError(
                f"{path} line {begins}: a cell is not quoted as CSV has it ({error}): one that begins with a quote ends"
                " with one, and quotes inside are written twice; a table as JSON lines needs no such care"
            ) from None
        if cells is None:
            return
        yield f"{path.name} line {reader.line_num}", cells


def _check_header(path: Path, header: list[str]) -> None:
    if not any(header):
        raise BuildError(f"{path} has no header: its first line must name the columns")
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        raise BuildError(f"{path} names the column {twice[0]!r} twice in its header")


def _read_json_lines(path: Path, findings: Findings) -> Iterator[LocatedRow]:
    with path.open(encoding=_encoding(path), newline="\n") as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                yield from _row_of(f"{path.name} line {number}", line, findings)


def _row_of(where: str, line: str, findings: Findings) -> Iterator[LocatedRow]:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        findings.add("rows that are no JSON", f"{where}: {error}")
        return
    yield from _object(where, value, findings)


def _object(where: str, value: Any, findings: Findings) -> Iterator[LocatedRow]:
    if isinstance(value, dict):
        yield where, value
    else:
        findings.add("rows that are no JSON object", where)


def _read_json(path: Path, findings: Findings) -> Iterator[LocatedRow]:
    """An array of objects, an object with one such array, or lines of JSON in a file that is only called .json."""
    try:
        document = json.loads(path.read_text(_encoding(path)))
    except (ValueError, RecursionError) as error:
        if isinstance(error, UnicodeDecodeError):
            raise
        yield from _read_json_lines(path, findings)
        return
    for number, value in enumerate(_array(path, document), start=1):
        yield from _object(f"{path.name} entry {number}", value, findings)


def _array(path: Path, document: Any) -> list[Any]:
    if isinstance(document, list):
        return document
    tables = [name for name, value in document.items() if _is_table(value)] if isinstance(document, dict) else []
    if len(tables) == 1:
        return list(document[tables[0]])
    if isinstance(document, dict) and not tables:
        return [document]
    raise BuildError(f"{path} holds {len(tables)} tables ({', '.join(tables[:5])}): write one of them to a .jsonl file")


def _is_table(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(entry, dict) for entry in value)
