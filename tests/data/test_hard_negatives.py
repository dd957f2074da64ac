"""Hard negatives come with their sample: as many as asked for, by stream position, and for training alone."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from mmpretrain.config.data import DataConfig, Kind, ModalityConfig, NegativesConfig
from mmpretrain.data.batch import NEGATIVES, PRESENT
from mmpretrain.data.index import ShardError, build_index
from mmpretrain.data.index_checks import check_split
from mmpretrain.data.sources import open_data
from mmpretrain.data.stream import Stream
from tests.data.own_data import picture, write

COUNT = 12
JSON = NegativesConfig(member=["json"], field=["negatives"], count=2)
Sample = Callable[[int], dict[str, bytes]]


def coded(**objects: Any) -> dict[str, dict[str, torch.Tensor]]:
    """A processor: of each text the number that ends it."""
    return {
        name: {"values": torch.tensor([int(text.rsplit(" ", 1)[1]) if isinstance(text, str) else 0 for text in items])}
        for name, items in objects.items()
    }


def config_of(path: Path, negatives: NegativesConfig | None = JSON, field: str = "captions") -> DataConfig:
    caption = ModalityConfig(Kind.text, member=["json"], field=[field], negatives=negatives)
    modalities = {"image": ModalityConfig(Kind.image, [8, 8]), "caption": caption}
    return DataConfig("small", str(path), modalities=modalities, global_batch=4)


def stream(config: DataConfig, split: str = "train", rank: int = 0, world_size: int = 1, seed: int = 3) -> Stream:
    return Stream(config, split, seed, rank, world_size, processor=coded)


def sample(number: int) -> dict[str, bytes]:
    """Sample n has n % 5 hard negatives, 100 n + 0, 1, ..., and its own caption among them."""
    own = f"right {100 * number + 99}"
    texts = [own, *(f"wrong {100 * number + place}" for place in range(number % 5))]
    return {"jpg": picture(number, "JPEG"), "json": json.dumps({"captions": [own], "negatives": texts}).encode()}


def made(folder: Path, of: Sample = sample, splits: tuple[str, ...] = ("train",)) -> Path:
    for split in splits:
        write(folder / split, of, COUNT)
        build_index(folder / split)
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made(tmp_path_factory.mktemp("negatives"))


def drawn(found: Stream, first: int = 0, stop: int = 9) -> list[list[tuple[int, list[int]]]]:
    """Of each step and sample, its number and its hard negatives."""
    steps = []
    for batch in found.batches(first, stop):
        view = batch.views[NEGATIVES]["caption"]
        assert view["values"].shape == view[PRESENT].shape == (len(batch), 2)
        rows = zip(batch.sample_ids.tolist(), view["values"], view[PRESENT], strict=True)
        steps.append([(number, values[there].tolist()) for number, values, there in rows])
    return steps


def test_a_sample_has_its_own_and_as_many_as_there_are(data: Path) -> None:
    for number, values in (entry for step in drawn(stream(config_of(data))) for entry in step):
        assert len(set(values)) == min(number % 5, 2)
        assert all(value in range(100 * number, 100 * number + number % 5) for value in values)


def test_of_more_each_has_its_turn_and_ranks_and_resuming_change_nothing(data: Path) -> None:
    config = config_of(data)
    whole = drawn(stream(config))
    assert drawn(stream(config), 4) == whole[4:]
    halves = [drawn(stream(config, rank=rank, world_size=2)) for rank in (0, 1)]
    assert [[*left, *right] for left, right in zip(*halves, strict=True)] == whole
    of_four = {
        value for step in drawn(stream(config), 0, 60) for number, values in step if number == 4 for value in values
    }
    assert of_four == {400, 401, 402, 403}


def test_evaluations_and_other_splits_have_none(tmp_path: Path) -> None:
    plain: Sample = lambda n: {"jpg": picture(n, "JPEG"), "json": json.dumps({"captions": f"a {n}"}).encode()}  # noqa: E731
    made(tmp_path), made(tmp_path, plain, ("test",))
    beside = NegativesConfig(member=["negatives.txt"])
    config = config_of(tmp_path)
    assert all(NEGATIVES not in batch.views for batch in stream(config).split_batches(4))
    assert all(NEGATIVES not in batch.views for batch in stream(config, "test").split_batches(4))
    # What the test split does not hold is asked of the train split alone.
    with pytest.raises(ShardError, match=r"negatives\.member=\[negatives\.txt\]"):
        open_data(config_of(tmp_path, beside), "train")
    assert open_data(config_of(tmp_path, beside), "test").parts[""].members.negatives == {}
    assert not check_split(config_of(tmp_path, beside), "test").problems


def test_plain_text_has_one_per_line_and_a_sample_may_have_none(tmp_path: Path) -> None:
    def lines(number: int) -> dict[str, bytes]:
        members = {"jpg": picture(number, "JPEG"), "caption.txt": f"right {number}".encode()}
        return members | ({"caption_negatives.txt": b"wrong 7\n\nwrong 8\n"} if number % 2 else {})

    made(tmp_path, lines)
    entry = ModalityConfig(Kind.text, negatives=NegativesConfig(count=2))
    config = config_of(tmp_path)
    config = replace(config, modalities=config.modalities | {"caption": entry})
    found = [entry for step in drawn(stream(config)) for entry in step]
    assert {tuple(values) for number, values in found if number % 2} == {(7, 8)}
    assert {tuple(values) for number, values in found if not number % 2} == {()}


def test_what_cannot_hold_them_is_named_before_the_run(data: Path, tmp_path: Path) -> None:
    (problem,) = check_split(config_of(data, NegativesConfig(member=["jpg"])), "train").problems
    assert "data.modalities.caption.negatives is a text" in problem and "jpg" in problem
    damaged = made(tmp_path, lambda n: sample(n) | ({"json": b'{"captions": "a 1", "negatives": 3}'} if n == 2 else {}))
    found = list(stream(replace(config_of(damaged), max_bad_fraction=0.5)).batches(0, 3))
    assert {entry.key for batch in found for entry in batch.replaced} and "'negatives' is 3" in found_error(found)


def found_error(batches: list[Any]) -> str:
    return next(entry.error for batch in batches for entry in batch.replaced)
