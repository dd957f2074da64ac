"""Tables of people's own: CSV, TSV, JSON lines, JSON and Parquet, one file or several of the same form."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from mmpretrain.config.sources import LabelForm
from mmpretrain.data.writing import BuildError
from shards.sources.columns import Known, Wishes, agreed, choose_columns
from shards.sources.features import known_of_schema
from shards.sources.findings import Findings, left_out
from shards.sources.lines import SUFFIXES, read_lines
from shards.sources.nested import with_nested
from shards.sources.rows import ParquetRows, open_parquet, spool
from shards.sources.sample import Rows, Source
from shards.sources.splits import split_rows

LOOKED_AT = 64
PARQUET = (".parquet", ".pq")


def open_table(
    files: Mapping[str, Sequence[Path]], root: Path | None, wishes: Wishes, work: Path, findings: Findings
) -> Source:
    """Rows of all files of a split, one behind the other; or of those of one split, by a column that says it.

    root: of the paths (default: the first file's folder). Raises BuildError: a file is missing or not of these forms,
    or its columns leave a choice.
    """
    paths = [path for part in files.values() for path in part]
    for path in paths:
        if not path.is_file():
            raise BuildError(f"{path} is no file: name a table ({', '.join([*SUFFIXES, *PARQUET])})")
    if wishes.split is not None and len(files) > 1:
        raise BuildError(f"--split-column {wishes.split}: the files name their splits already, leave it out")
    splits = {split: open_rows(part, work / f"{split}.jsonl", findings) for split, part in files.items()}
    first = next(iter(splits.values()))
    known = agreed(str(paths[0].parent), {split: known_of(rows) for split, rows in splits.items()})
    if wishes.split is not None:
        splits = split_rows(first, wishes.split, str(paths[0]))
    return choose_source(splits, str(paths[0]), root or paths[0].parent, wishes, known, findings)


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
    return known_of_files(rows.paths) if isinstance(rows, ParquetRows) else Known()


def known_of_files(paths: Sequence[Path]) -> Known:
    """The same of Parquet or Arrow files, which must agree."""
    return agreed(str(paths[0].parent), {path.name: known_of_schema(path) for path in paths})


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
    if wishes.label_form is not LabelForm.one_class:
        _say_form(wishes, choice.label, findings)
        classes = None
    return Source(
        root, splits, choice.columns, wishes.key, choice.label, classes, classes is not None, wishes.label_form
    )


def _say_form(wishes: Wishes, label: str | None, findings: Findings) -> None:
    """Raises BuildError where there are no labels of the form that was asked for."""
    if label is None:
        raise BuildError(f"--label-form {wishes.label_form}: name the column of labels by --label")
    findings.add(f"labels are of the form {wishes.label_form}: runs read them with data.label.form={wishes.label_form}")
