"""Members of a tar, grouped into samples as WebDataset readers do (no torch here)."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mmpretrain.data.index_columns import Columns, columns_of
from mmpretrain.data.index_scan import Member, ScannedShard, ShardError

# A tar of photos named 2024.05.17.jpg has as many "extensions" as photos: each would be a column of all samples.
MOST_EXTENSIONS = 256


def group_members(folder: Path, scanned: ScannedShard) -> tuple[tuple[str, ...], Columns]:
    """(what follows the keys in the names, sorted; the columns) of a tar.

    Raises:
        ShardError: a key comes back later in the tar (readers make two half samples of it), a member is
            there twice, or keys contain dots.
    """
    where = f"{folder / scanned.name}: member"
    rows: dict[str, dict[str, tuple[int, int]]] = {}
    current = None
    for member in scanned.members:
        if member.key != current and member.key in rows:
            raise ShardError(f"{where} {_name(member)} is apart from its sample: write its members side by side")
        current = member.key
        row = rows.setdefault(current, {})
        if member.extension in row:
            raise ShardError(f"{where} {_name(member)} is there twice: write it once")
        row[member.extension] = (member.offset, member.size)
    extensions = tuple(sorted({extension for row in rows.values() for extension in row}))
    if len(extensions) > MOST_EXTENSIONS:
        raise ShardError(
            f"{folder / scanned.name}: has {len(extensions)} different endings after the keys"
            f" ({', '.join(f'.{e}' for e in extensions[:3])}, ...): the names contain dots, and readers end a key at"
            " the first one: write the shards with other names"
        )
    spans = [[row.get(extension, (-1, 0)) for extension in extensions] for row in rows.values()]
    array = np.array(spans, dtype=np.int64).reshape(len(rows), len(extensions), 2)
    return extensions, columns_of(list(rows), array)


def _name(member: Member) -> str:
    return f"'{member.key}.{member.extension}'"
