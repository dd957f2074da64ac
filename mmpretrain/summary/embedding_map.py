"""A map of held-out embeddings: where samples of all modalities lie in two dimensions, a small file of the run folder.

There are two views: ``whole``, of the embeddings as they are, in which the gap between modalities is often what differs
most, and ``centered``, of each modality around its own middle, in which it is what the samples are.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mmpretrain.config.kind import Drawing, Kind
from mmpretrain.files import replace_text

if TYPE_CHECKING:
    from mmpretrain.data.reader import Reader
    from mmpretrain.evaluation.embeddings import Embeddings

MOST_POINTS = 500
LONGEST_TEXT = 80  # characters
DIGITS = 4


def embedding_map(
    embeddings: Embeddings,
    split: str,
    classes: Sequence[str] | None = None,
    text: Callable[[int], str | None] = lambda _: None,
) -> dict[str, Any] | None:
    """At most MOST_POINTS points, of samples drawn by a fixed seed; None if there is nothing to compare.

    Modalities whose embeddings have another width than most are left out. classes: name of each label. text: ordinal of
    the split -> what to call the sample, None for nothing.
    The result: ``modalities``; per sample ``ordinals``, ``labels`` (names or numbers; null without classes) and
    ``texts``; ``views``: view -> ``points``, modality -> [x, y] per sample (null where it lacks the modality), and
    ``explained``, the shares of variance along x and y.
    """
    names = _comparable(embeddings)
    if not names or len(embeddings) < 2:
        return None
    rows = _drawn(len(embeddings), max(2, MOST_POINTS // len(names)))
    there = {name: embeddings.present.get(name, np.ones(len(embeddings), bool))[rows] for name in names}
    if sum(int(mask.sum()) for mask in there.values()) < 3:
        return None
    vectors = {name: _units(embeddings.embeds[name][rows][there[name]]) for name in names}
    centered = {name: rows - rows.mean(axis=0) if len(rows) else rows for name, rows in vectors.items()}
    return {
        "split": split,
        "samples": len(embeddings),
        "modalities": names,
        "ordinals": embeddings.ordinals[rows].tolist(),
        "labels": _labels(embeddings.labels, rows, classes),
        "texts": [_short(text(int(ordinal))) for ordinal in embeddings.ordinals[rows]],
        "views": {"whole": _view(vectors, there), "centered": _view(centered, there)},
    }


def write_map(
    path: Path,
    embeddings: Embeddings,
    split: str,
    classes: Sequence[str] | None,
    reader: Reader,
    kinds: Mapping[str, Kind],
) -> None:
    """Save the map of ``embeddings`` of ``split``, with the first text of each sample from ``reader``, atomically.

    Nothing is written where nothing can be compared.
    """
    content = embedding_map(embeddings, split, classes, _first_text(reader, kinds))
    if content is not None:
        replace_text(path, json.dumps(content, ensure_ascii=False, separators=(",", ":"), allow_nan=False))


def _first_text(reader: Reader, kinds: Mapping[str, Kind]) -> Callable[[int], str | None]:
    from mmpretrain.data.decode import SampleError
    from mmpretrain.data.reader import read_sample

    texts = {name: kind for name, kind in kinds.items() if kind.row.drawing is Drawing.words}

    def read(ordinal: int) -> str | None:
        try:
            return next((str(text) for text in read_sample(reader, texts, ordinal).values()), None) if texts else None
        except SampleError:
            return None

    return read


def _drawn(samples: int, wanted: int) -> np.ndarray:
    """Rows [at most wanted]; evenly spaced ones would be of one class where classes take turns."""
    return np.sort(np.random.default_rng(0).permutation(samples)[:wanted])


def _comparable(embeddings: Embeddings) -> list[str]:
    widths = Counter(rows.shape[1] for rows in embeddings.embeds.values())
    if not widths:
        return []
    width = widths.most_common(1)[0][0]
    return [name for name, rows in embeddings.embeds.items() if rows.shape[1] == width and width >= 2]


def _units(rows: np.ndarray) -> np.ndarray:
    from mmpretrain.evaluation.similarity import unit_rows

    return unit_rows(rows.astype(np.float64))


def _view(vectors: Mapping[str, np.ndarray], there: Mapping[str, np.ndarray]) -> dict[str, Any]:
    from sklearn.decomposition import PCA

    stacked = np.concatenate(list(vectors.values()))
    pca = PCA(n_components=2, svd_solver="full")
    with np.errstate(divide="ignore", invalid="ignore"):  # embeddings that are all alike have no variance to share out
        flat = pca.fit_transform(stacked)
        explained = np.nan_to_num(pca.explained_variance_ratio_)
    places = iter(np.round(flat / (np.abs(flat).max() or 1.0), DIGITS).tolist())
    points = {name: [next(places) if has else None for has in mask.tolist()] for name, mask in there.items()}
    return {"points": points, "explained": np.round(explained, DIGITS).tolist()}


def _labels(labels: np.ndarray | None, rows: np.ndarray, classes: Sequence[str] | None) -> list[str] | None:
    if labels is None or labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
        return None
    known = classes or []
    return [known[label] if 0 <= label < len(known) else str(label) for label in labels[rows].tolist()]


def _short(text: str | None) -> str:
    line = " ".join((text or "").split())
    return line if len(line) <= LONGEST_TEXT else line[: LONGEST_TEXT - 1] + "…"
