"""Which pairs and samples the grid of retrievals shows, with which verdicts, and its file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmpretrain.config.data import Kind
from mmpretrain.data.decode import Raw
from mmpretrain.data.index import load_index
from mmpretrain.data.reader import Reader
from mmpretrain.evaluation.embeddings import Embeddings
from mmpretrain.summary.grid_file import GRID_FILE, Grid, RetrievalVerdict, load_grid, save_grid
from mmpretrain.summary.retrieval_grid import pairs_to_show, retrieval_grid, write_grid
from shards.digits import build_digits
from tests.evaluation.made_up import embeddings

KINDS = {"left": Kind.image, "right": Kind.image, "caption": Kind.text, "mrna": Kind.vector}


def three(noise: float = 0.3) -> Embeddings:
    """Embeddings of three modalities, captions equal to left halves."""
    made = embeddings(noise=noise)
    return replace(made, embeds={**made.embeds, "caption": made.embeds["left"]})


def picture(grid: Grid, name: str, ordinal: int) -> np.ndarray:
    """What ``grid`` shows of a modality of images."""
    shown = grid.shown[name, ordinal]
    assert isinstance(shown, np.ndarray)
    return shown


def sample(ordinal: int) -> dict[str, Raw]:
    """The raw sample at ``ordinal``, which its pixels and its text name."""
    return {
        "left": Image.new("L", (4, 8), ordinal),
        "right": Image.new("RGB", (600, 300), (ordinal, 0, 0)),
        "caption": f"sample {ordinal}",
    }


@pytest.mark.parametrize(
    ("names", "pairs"),
    [
        (["left", "right", "caption"], [("left", "right"), ("caption", "left")]),
        (["left", "caption"], [("left", "caption"), ("caption", "left")]),
        (["left", "right"], [("left", "right")]),
        (["left", "mrna"], []),
        (["caption", "mrna"], []),
    ],
)
def test_pairs_to_show(names: list[str], pairs: list[tuple[str, str]]) -> None:
    assert pairs_to_show({name: KINDS[name] for name in names}) == pairs


def test_nearest_first_with_verdicts() -> None:
    made = three(noise=0.01)
    grid = retrieval_grid(made, {k: KINDS[k] for k in made.embeds}, sample, queries=3, top=5)
    assert grid is not None and made.labels is not None
    images, captions = grid.pairs
    assert images.queries.tolist() == [0, 2, 3]  # the first of three of the four classes
    assert images.items.shape == (3, 5)
    assert (images.verdicts >= RetrievalVerdict.same_class).all()
    assert np.array_equal(made.labels[images.items], np.repeat(made.labels[images.queries][:, None], 5, axis=1))
    assert captions.items[:, 0].tolist() == captions.queries.tolist()
    assert captions.verdicts[:, 0].tolist() == [RetrievalVerdict.pair] * 3


def test_missing_modalities_are_not_shown() -> None:
    made = three()
    there = np.arange(len(made)) % 4 > 1
    missing = replace(made, present={"left": there})
    grid = retrieval_grid(missing, {k: KINDS[k] for k in made.embeds}, sample)
    assert grid is not None
    shown = {ordinal for modality, ordinal in grid.shown if modality == "left"}
    assert shown and all(there[ordinal] for ordinal in shown)
    assert retrieval_grid(replace(made, present={"left": there & False}), KINDS, sample) is None


def test_wrong_without_labels_unless_the_pair() -> None:
    made = replace(three(), labels=None)
    grid = retrieval_grid(made, {k: KINDS[k] for k in made.embeds}, sample, queries=3)
    assert grid is not None
    assert grid.pairs[1].queries.tolist() == [0, 40, 79]
    expected = np.where(
        grid.pairs[0].items == grid.pairs[0].queries[:, None], RetrievalVerdict.pair, RetrievalVerdict.wrong
    )
    assert np.array_equal(grid.pairs[0].verdicts, expected)


def test_ordinals_are_not_rows() -> None:
    made = three()
    shifted = replace(made, ordinals=made.ordinals + 7)
    grid = retrieval_grid(shifted, {k: KINDS[k] for k in made.embeds}, sample)
    assert grid is not None and grid.pairs[0].queries.tolist() == [7, 8, 9, 10]
    assert picture(grid, "left", 7)[0, 0].tolist() == [7, 7, 7]


def test_saved_grid_comes_back(tmp_path: Path) -> None:
    made = three()
    grid = retrieval_grid(made, {k: KINDS[k] for k in made.embeds}, sample)
    assert grid is not None
    save_grid(tmp_path / "retrieval_grid.npz", grid)
    again = load_grid(tmp_path / "retrieval_grid.npz")
    assert [p.name for p in tmp_path.iterdir()] == ["retrieval_grid.npz"]
    for before, after in zip(grid.pairs, again.pairs, strict=True):
        assert (before.query, before.item) == (after.query, after.item)
        assert np.array_equal(before.items, after.items) and np.array_equal(before.verdicts, after.verdicts)
    assert again.shown["caption", 0] == "sample 0"
    assert picture(again, "left", 0).shape == (8, 4, 3)
    assert picture(again, "right", 0).shape == (64, 128, 3)  # large pictures are made small
    assert set(again.shown) == set(grid.shown)


def test_written_from_shards(tmp_path: Path) -> None:
    build_digits(tmp_path / "digits")
    reader = Reader(load_index(tmp_path / "digits" / "test"))
    kinds = {name: KINDS[name] for name in ("left", "right", "caption")}
    write_grid(tmp_path / GRID_FILE, three(), reader, kinds)
    reader.close()
    grid = load_grid(tmp_path / GRID_FILE)
    assert picture(grid, "left", 0).shape == (8, 4, 3) and picture(grid, "left", 0).dtype == np.uint8
    assert str(grid.shown["caption", 0]).startswith("a")


def test_nothing_to_show_for_vectors() -> None:
    made = embeddings()
    kinds = {"left": Kind.vector, "right": Kind.vector}
    assert retrieval_grid(made, kinds, sample) is None
