"""Tables of people's own: CSV, TSV, JSON lines, JSON and Parquet, one file or several of the same form."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mmpretrain.data.writing import BuildError
from shards.sources.columns import Known, Wishes, choose_columns
from shards.sources.features import known_of_schema
from shards.sources.findings import Findings, left_out
from shards.sources.lines import SUFFIXES, read_lines
from shards.sources.nested import with_nested
from shards.sources.rows import ParquetRows, open_parquet, spool
from shards.sources.sample import Rows, Source

LOOKED_AT = 64
PARQUET = (".parquet", ".pq")


def open_table(files: Sequence[Path], root: Path | None, wishes: Wishes, work: Path, findings: Findings) -> Source:
    """Rows of all files, one behind the other, as one split. root: of the paths (default: the first file's folder).

    Raises BuildError: a file is missing or not of these forms, or its columns leave a choice.
    """
    for path in files:
        if not path.is_file():
            raise BuildError(f"{path} is no file: name a table ({', '.join([*SUFFIXES, *PARQUET])})")
    rows = open_rows(files, work / "train.jsonl", findings)
    return choose_source({"train": rows}, str(files[0]), root or files[0].parent, wishes, known_of(rows), findings)


def open_rows(files: Sequence[Path], spooled: Path, findings: Findings) -> Rows:
    """The rows of tables of one form. spooled: where the rows of textual ones are put for random access."""
    suffixes = {path.suffix.lower() for path in files}
    unknown = sorted(suffixes - {*SUFFIXES, *PARQUET})
    if unknown:
        known = ", ".join([*SUFFIXES, *PARQUET])
        raise BuildError(f"tables of the form {unknown[0] or '(no suffix)'} are not read: one of {known} is needed")
    if suffixes & set(PARQUET):
        if not suffixes <= set(PARQUET):
            raise BuildError("Parquet and textual tables in one call: build them one by one")
        return open_parquet(files)
    return spool((row for path in files for row in read_lines(path, findings)), spooled)


def known_of(rows: Rows) -> Known:
    """What Parquet files say of their columns beyond the types."""
    return known_of_schema(rows.paths[0]) if isinstance(rows, ParquetRows) else Known()


def choose_source(
    splits: dict[str, Rows], where: str, root: Path, wishes: Wishes, known: Known, findings: Findings
) -> Source:
    """The source of these rows, its columns chosen by the first of them. Raises BuildError: no rows, or a choice."""
    splits = with_nested(splits, wishes.columns)
    first = next(iter(splits.values()))
    if not len(first):
        raise BuildError(f"{where} has no rows{left_out(findings)}")
    names = list(dict.fromkeys(name for rows in splits.values() for name in rows.columns))
    looked_at = [row for _, _, row in first.read(np.arange(min(LOOKED_AT, len(first))), first.columns)]
    choice = choose_columns(where, names, looked_at, root, wishes, known, findings)
    classes = known.classes.get(choice.label) if choice.label is not None else None
    return Source(root, splits, choice.columns, wishes.key, choice.label, classes, classes is not None)
