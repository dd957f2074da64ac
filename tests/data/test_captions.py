"""Of several captions one is drawn by stream position: whatever the ranks, and wherever a run goes on."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from mmpretrain.config.data import DataConfig, Kind, ModalityConfig
from mmpretrain.data.index import build_index
from mmpretrain.data.stream import Stream
from tests.data.own_data import picture, write

COUNT = 12


def stream(path: Path, rank: int = 0, world_size: int = 1, seed: int = 3) -> Stream:
    """Its batches hold the captions themselves."""
    modalities = {"image": ModalityConfig(Kind.image, [8, 8]), "caption": ModalityConfig(Kind.text)}
    config = DataConfig("small", str(path), modalities=modalities, global_batch=4)
    return Stream(config, "train", seed, rank, world_size, processor=dict)


def captions(found: Stream, first: int, stop: int) -> list[Any]:
    """Of each step."""
    return [batch.inputs["caption"] for batch in found.batches(first, stop)]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three captions per picture."""
    folder = tmp_path_factory.mktemp("captions")

    def sample(number: int) -> dict[str, bytes]:
        texts = [f"{word} {number}" for word in ("first", "second", "third")]
        return {"jpg": picture(number, "JPEG"), "json": json.dumps(texts).encode()}

    write(folder / "train", sample, COUNT)
    build_index(folder / "train")
    return folder


def test_ranks_and_resuming_do_not_change_what_is_drawn(data: Path) -> None:
    whole = captions(stream(data), 0, 9)
    assert captions(stream(data), 4, 9) == whole[4:]
    halves = [captions(stream(data, rank, 2), 0, 9) for rank in (0, 1)]
    assert [[*left, *right] for left, right in zip(*halves, strict=True)] == whole
    assert captions(stream(data, seed=4), 0, 9) != whole


def test_each_caption_has_its_turn(data: Path) -> None:
    drawn = [text for step in captions(stream(data), 0, 90) for text in step]
    counts = Counter(text.split()[0] for text in drawn)
    assert sum(counts.values()) == 360 and all(90 <= count <= 150 for count in counts.values())
    assert len(set(drawn)) == 3 * COUNT  # the same picture gets another caption in another epoch


def test_evaluations_take_the_first(data: Path) -> None:
    batches = stream(data).split_batches(4)
    assert [text for batch in batches for text in batch.inputs["caption"]] == [f"first {n}" for n in range(COUNT)]
