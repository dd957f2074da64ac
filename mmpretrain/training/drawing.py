"""Pictures that a run leaves of held-out samples. What goes wrong here is told in the log and ends no run."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from mmpretrain.config.kind import Kind
from mmpretrain.config.root import Config
from mmpretrain.data.info import dataset_info
from mmpretrain.data.reader import Reader
from mmpretrain.data.stream import Stream
from mmpretrain.evaluation.embeddings import Embeddings
from mmpretrain.run_folder import RunFolder
from mmpretrain.summary.embedding_map import write_map
from mmpretrain.summary.grid_file import GRID_FILE, MAP_FILE, load_grid
from mmpretrain.summary.grid_picture import grid_picture
from mmpretrain.summary.retrieval_grid import write_grid
from mmpretrain.summary.summary import draw_summary

logger = logging.getLogger(__name__)


def draw_grid(
    folder: RunFolder, config: Config, embeddings: Embeddings, reader: Reader, *, picture: bool
) -> bytes | None:
    """Write the retrieval grid of a split into the run folder; if ``picture``, also give it as a PNG.

    reader: of the split that ``embeddings`` are of. None without a picture, or without anything that can be shown.
    """
    path = folder.path / GRID_FILE
    try:
        write_grid(path, embeddings, reader, _kinds(config))
        return grid_picture(load_grid(path)) if picture and path.exists() else None
    except Exception:
        logger.exception("the retrieved samples could not be drawn")
        return None


def draw_end(
    folder: RunFolder, config: Config, embeddings: Embeddings | None, split: str, splits: Mapping[str, Stream]
) -> None:
    """Of a complete run: the map of the held-out split's ``embeddings`` (None without one), and the summary.

    splits: those that have been read, by name.
    """
    try:
        if embeddings is not None:
            info = dataset_info(config.data)
            classes = info.classes if info else None
            write_map(folder.path / MAP_FILE, embeddings, split, classes, splits[split].reader, _kinds(config))
    except Exception:
        logger.exception("the map of embeddings could not be drawn")
    try:
        draw_summary(folder.path)
    except Exception:
        logger.exception("the summary could not be drawn")


def _kinds(config: Config) -> dict[str, Kind]:
    return {name: modality.kind for name, modality in config.data.modalities.items()}
