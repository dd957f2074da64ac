"""A retrieval grid: for a few queries of the held-out split, the nearest items of another modality, as pictures.

The queries are not chosen for their results: the first sample of each of some classes (evenly spread over the labels),
or evenly spread samples where there are no labels. Shapes: q queries, t retrieved items each.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import numpy as np
from PIL.Image import Image

from mmpretrain.config.kind import Drawing, Kind
from mmpretrain.data.decode import Raw
from mmpretrain.data.reader import Reader, read_sample
from mmpretrain.evaluation.embeddings import Embeddings, has_classes
from mmpretrain.evaluation.similarity import unit_rows
from mmpretrain.figures import spectrogram_image
from mmpretrain.models.images_mmpretrain import flat
from mmpretrain.summary.grid_file import Grid, GridPair, RetrievalVerdict, Shown, save_grid

LARGEST_SIDE = 128


def pairs_to_show(kinds: Mapping[str, Kind]) -> list[tuple[str, str]]:
    """(query, item) modalities worth a picture: image -> another image, text -> image, else image -> text.

    Sounds count as images, and come after them. Empty if no modality is one.
    """
    drawn = (Drawing.picture, Drawing.spectrogram)
    images = [name for drawing in drawn for name, kind in kinds.items() if kind.row.drawing is drawing]
    texts = [name for name, kind in kinds.items() if kind.row.drawing is Drawing.words]
    pairs = [(images[0], images[1])] if len(images) > 1 else []
    if images and texts:
        pairs += [(texts[0], images[0])] if pairs else [(images[0], texts[0]), (texts[0], images[0])]
    return pairs


def retrieval_grid(
    embeddings: Embeddings,
    kinds: Mapping[str, Kind],
    sample: Callable[[int], Mapping[str, Raw]],
    queries: int = 5,
    top: int = 5,
) -> Grid | None:
    """The grid of ``embeddings``; None if no modality can be shown.

    ``kinds``: modality -> kind. ``sample``: ordinal of the split -> decoded sample (modality -> PIL image, text
    or sound), called for the samples that are shown, each once.
    """
    pairs = []
    for query, item in pairs_to_show(kinds):
        both = embeddings.only(embeddings.having((query, item)))
        if len(both):
            pairs.append(_pair(both, query, item, _query_rows(both, queries), top))
    wanted: dict[int, set[str]] = {}
    for pair in pairs:
        for modality, ordinals in ((pair.query, pair.queries), (pair.item, pair.queries), (pair.item, pair.items)):
            for ordinal in ordinals.ravel().tolist():
                wanted.setdefault(ordinal, set()).add(modality)
    shown: dict[tuple[str, int], Shown] = {}
    for ordinal in sorted(wanted):
        decoded = sample(ordinal)
        shown |= {(modality, ordinal): _picture(decoded[modality]) for modality in sorted(wanted[ordinal])}
    return Grid(pairs, shown) if pairs else None


def write_grid(path: Path, embeddings: Embeddings, reader: Reader, kinds: Mapping[str, Kind]) -> None:
    """Make the grid of ``embeddings`` with samples from ``reader`` (same split) and save it to ``path``.

    Nothing is written if no modality can be shown. Raises what :func:`read_sample` raises.
    """
    grid = retrieval_grid(embeddings, kinds, partial(read_sample, reader, kinds))
    if grid is not None:
        save_grid(path, grid)


def _query_rows(embeddings: Embeddings, queries: int) -> np.ndarray:
    """Rows [q] of the queries (see the module's docstring)."""
    if embeddings.labels is None or not has_classes(embeddings.labels):
        rows = np.arange(len(embeddings))
    else:
        rows = np.unique(embeddings.labels, return_index=True)[1]
    return rows[np.unique(np.linspace(0, len(rows) - 1, min(queries, len(rows))).round().astype(int))]


def _pair(embeddings: Embeddings, query: str, item: str, rows: np.ndarray, top: int) -> GridPair:
    similarity = unit_rows(embeddings.embeds[query][rows]) @ unit_rows(embeddings.embeds[item]).T
    nearest = np.argsort(-similarity, axis=1, kind="stable")[:, :top]
    verdicts = np.where(nearest == rows[:, None], RetrievalVerdict.pair, RetrievalVerdict.wrong)
    if embeddings.labels is not None and has_classes(embeddings.labels):
        same = embeddings.labels[nearest] == embeddings.labels[rows, None]
        verdicts = np.where(same & (verdicts == RetrievalVerdict.wrong), RetrievalVerdict.same_class, verdicts)
    return GridPair(query, item, embeddings.ordinals[rows], embeddings.ordinals[nearest], verdicts)


def _picture(raw: Raw) -> Shown:
    if isinstance(raw, dict):
        raw = spectrogram_image(raw["array"], raw["sampling_rate"], (LARGEST_SIDE, LARGEST_SIDE // 2))
    if not isinstance(raw, Image):
        return str(raw)
    small = flat(raw, channels=3).copy()
    small.thumbnail((LARGEST_SIDE, LARGEST_SIDE))
    return np.asarray(small)
