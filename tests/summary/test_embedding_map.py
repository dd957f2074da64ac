"""The map of held-out embeddings."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np

from mmpretrain.config.data import Kind
from mmpretrain.data.index import load_index
from mmpretrain.data.reader import Reader
from mmpretrain.summary.embedding_map import LONGEST_TEXT, MOST_POINTS, embedding_map, write_map
from mmpretrain.summary.grid_file import MAP_FILE
from tests.data.small_dataset import write_split
from tests.evaluation.made_up import embeddings


def test_a_map_has_few_points_of_every_class_and_modality() -> None:
    made = embeddings(classes=5, each=400)
    found = embedding_map(made, "test", ["a", "b", "c"], lambda ordinal: f"sample {ordinal} " + 200 * "x")
    assert found is not None and found == embedding_map(
        made, "test", ["a", "b", "c"], lambda n: f"sample {n} " + 200 * "x"
    )
    points = found["views"]["whole"]["points"]
    assert sum(map(len, points.values())) == MOST_POINTS and len(found["ordinals"]) == MOST_POINTS // 2
    assert set(found["labels"]) == {"a", "b", "c", "3", "4"} and found["samples"] == 2000
    assert all(len(text) == LONGEST_TEXT for text in found["texts"])
    assert np.abs(np.array(points["left"])).max() <= 1 and len(json.dumps(found)) < 80_000


def test_around_its_own_middle_no_modality_stands_apart() -> None:
    """The gap is most of what the first view shows and nothing of the second."""
    made = embeddings(noise=0.1)
    shifted = replace(made, embeds={"left": made.embeds["left"] + 9, "right": made.embeds["right"] - 9})
    found = embedding_map(shifted, "test")
    assert found is not None
    gaps = {
        name: float(np.linalg.norm(np.mean(view["points"]["left"], axis=0) - np.mean(view["points"]["right"], axis=0)))
        for name, view in found["views"].items()
    }
    assert gaps["whole"] > 1.5 and gaps["centered"] < 0.01


def test_what_is_not_there_or_cannot_be_compared_has_no_points() -> None:
    made = embeddings()
    missing = np.arange(len(made)) % 2 == 0
    found = embedding_map(
        replace(made, embeds={**made.embeds, "wide": np.ones((len(made), 99))}, present={"left": missing}), "test"
    )
    assert found is not None and found["modalities"] == ["left", "right"]
    lacks = [place is None for place in found["views"]["whole"]["points"]["left"]]
    assert lacks == [ordinal % 2 == 1 for ordinal in found["ordinals"]]
    assert embedding_map(made.only(np.arange(len(made)) < 1), "test") is None
    alike = replace(made, embeds={name: np.ones_like(rows) for name, rows in made.embeds.items()}, labels=None)
    same = embedding_map(alike, "test")
    assert same is not None and same["labels"] is None and same["views"]["whole"]["explained"] == [0.0, 0.0]


def test_the_file_has_the_first_text_of_every_sample(tmp_path: Path) -> None:
    write_split(tmp_path / "test", (8,))
    reader = Reader(load_index(tmp_path / "test"))
    made = embeddings(classes=2, each=4)
    write_map(tmp_path / MAP_FILE, made, "test", None, reader, {"caption": Kind.text, "gene": Kind.vector})
    assert all(json.loads((tmp_path / MAP_FILE).read_text())["texts"])
