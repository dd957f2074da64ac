"""Parts of a split by a hash of each key."""

from __future__ import annotations

import numpy as np
import pytest

from mmpretrain.config.data import DataConfig, Kind, ModalityConfig
from mmpretrain.data.index import ShardError
from mmpretrain.data.info import DatasetInfo
from mmpretrain.data.sides import TOP, Side, rest, sides
from mmpretrain.data.source_checks import check_data_split
from mmpretrain.data.sources import open_data
from mmpretrain.data.split import side_of
from mmpretrain.data.writing import RawSample, build_dataset
from mmpretrain.training.held_out import not_held_out
from tests.data.small_dataset import png

SHARES = {"validation": 0.2, "test": 0.3}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> DataConfig:
    folder = tmp_path_factory.mktemp("sides") / "data"
    samples: list[RawSample] = [
        {"__key__": f"s{number:04d}", "image.png": png(number % 256, (2, 2)), "caption.txt": b"a word"}
        for number in range(400)
    ]
    modalities = {"image": {"kind": "image"}, "caption": {"kind": "text"}}
    build_dataset(folder, DatasetInfo("data", "d", "made up", "MIT", modalities), {"train": samples})
    kinds = {"image": ModalityConfig(Kind.image, size=[2, 2]), "caption": ModalityConfig(Kind.text)}
    return DataConfig(name="data", path=str(folder), modalities=kinds, held_out=dict(SHARES))


def keys(data: DataConfig, split: str) -> list[str]:
    return list(open_data(data, split).index.all_keys())


def test_every_sample_is_in_exactly_one_split_and_shares_are_about_what_was_asked_for(data: DataConfig) -> None:
    found = {split: keys(data, split) for split in ("train", *SHARES)}
    assert sorted(key for part in found.values() for key in part) == [f"s{number:04d}" for number in range(400)]
    shares = [len(found[split]) / 400 for split in ("train", "validation", "test")]
    assert np.allclose(shares, [0.5, 0.2, 0.3], atol=0.07), shares
    assert check_data_split(data, "validation").samples == len(found["validation"])


def test_fingerprints_differ_and_samples_stay_on_their_sides_in_whatever_order_shares_are_named(
    data: DataConfig,
) -> None:
    prints = {open_data(data, split).index.fingerprint for split in ("train", *SHARES)}
    assert len(prints) == 3
    turned = DataConfig(**{**vars(data), "held_out": dict(reversed(SHARES.items()))})
    assert keys(turned, "test") == keys(data, "test")


def test_a_share_that_is_held_out_counts_as_held_out(data: DataConfig) -> None:
    from mmpretrain.config.evaluation import EvaluationConfig
    from mmpretrain.config.root import Config

    config = Config(data=data, evaluation=EvaluationConfig(split="test"))
    train, test = (open_data(data, split).index for split in ("train", "test"))
    assert not_held_out(config, train, test) is None
    whole = open_data(DataConfig(**{**vars(data), "held_out": {}}), "train").index
    assert "are shards that the model learned from" in str(not_held_out(config, whole, test))


def test_a_split_that_is_there_already_and_shares_without_samples_are_refused(data: DataConfig) -> None:
    with pytest.raises(ShardError, match=r"data\.held_out\.train.*has a folder train already"):
        side_of(DataConfig(**{**vars(data), "held_out": {"train": 0.1}}), "train")
    with pytest.raises(ShardError, match=r"leaves nothing for test.*such as data\.held_out\.test=0\.2"):
        open_data(DataConfig(**{**vars(data), "held_out": {"test": 1e-9}}), "test")


@pytest.mark.parametrize("shares", [{"test": 0.0}, {"test": 0.6, "validation": 0.4}, {"train": 0.1}])
def test_shares_that_cannot_be_are_problems_of_the_config(data: DataConfig, shares: dict[str, float]) -> None:
    assert any("data.held_out" in problem for problem in DataConfig(**{**vars(data), "held_out": shares}).problems())


def test_sides_meet_at_their_edges_alone_and_similar_keys_spread_over_all_of_them() -> None:
    found = sides(SHARES)
    assert found["test"].low == 0 and found["test"].high == found["validation"].low
    assert rest(SHARES) == Side(found["validation"].high, TOP) and rest({}) == Side(0, TOP)
    assert not found["test"].meets(found["validation"]) and rest(SHARES).meets(rest({"x": 0.1}))
    assert abs(len(Side(0, TOP // 4).of(np.arange(10_000, dtype=np.uint64))) - 2500) < 150
