"""What a retrieval grid is, its file in the run folder, and the name of the map beside it (no torch: reports read it).

Shapes: q queries, t retrieved items each.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path

import numpy as np

Shown = np.ndarray | str
GRID_FILE = "retrieval_grid.npz"  # in the run folder
MAP_FILE = "embeddings_map.json"  # beside it; embedding_map.py writes it


class RetrievalVerdict(IntEnum):
    """What a retrieved item is to its query: of another class, of the same class, its own pair.

    Without labels everything but the pair is ``wrong``.
    """

    wrong = 0
    same_class = 1
    pair = 2


@dataclass(frozen=True)
class GridPair:
    """Queries of one modality and what they retrieve from another.

    queries: int64 [q] ordinals. items: int64 [q, t] ordinals, nearest first. verdicts: int64 [q, t] of Verdict.
    """

    query: str
    item: str
    queries: np.ndarray
    items: np.ndarray
    verdicts: np.ndarray


@dataclass(frozen=True)
class Grid:
    """Pairs of modalities, and what their samples look like.

    shown: (modality, ordinal) -> uint8 [height, width, 3] or the text: of every query, of the item that belongs to it,
    and of every retrieved item.
    """

    pairs: list[GridPair]
    shown: dict[tuple[str, int], Shown] = field(default_factory=dict)


def save_grid(path: Path, grid: Grid) -> None:
    """Write ``grid`` as .npz (plain arrays, nothing pickled), atomically."""
    arrays: dict[str, np.ndarray] = {}
    for number, pair in enumerate(grid.pairs):
        arrays[f"pair/{number}/modalities"] = np.array([pair.query, pair.item])
        arrays |= {f"pair/{number}/{name}": getattr(pair, name) for name in ("queries", "items", "verdicts")}
    for (modality, ordinal), shown in grid.shown.items():
        arrays[f"shown/{modality}/{ordinal}"] = np.asarray(shown)
    partial = path.with_name(f".{path.name}.tmp.npz")
    np.savez_compressed(partial, **arrays)  # type: ignore[arg-type]
    partial.replace(path)


def load_grid(path: Path) -> Grid:
    """Read what :func:`save_grid` wrote."""
    grid = Grid([])
    with np.load(path, allow_pickle=False) as file:
        for key in file.files:
            kind, name, *rest = key.split("/")
            if kind == "shown":
                array = file[key]
                grid.shown[name, int(rest[0])] = array if array.ndim else str(array)
            elif rest == ["modalities"]:
                query, item = file[key].tolist()
                fields = [file[f"pair/{name}/{field}"] for field in ("queries", "items", "verdicts")]
                grid.pairs.append(GridPair(query, item, *fields))
    return grid
