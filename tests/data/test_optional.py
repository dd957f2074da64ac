"""Samples without some modality, and sequences of any length, from shards to batches."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mmpretrain.assembly.build import build_processor, build_unaugmented_processor
from mmpretrain.config.data import DataConfig, Kind, ModalityConfig
from mmpretrain.config.methods.base import MethodConfig
from mmpretrain.config.model import EncoderConfig, ModelConfig
from mmpretrain.config.root import Config
from mmpretrain.data.batch import Batch
from mmpretrain.data.index_checks import check_split
from mmpretrain.data.quarantine import BadDataError
from mmpretrain.data.stream import Stream
from mmpretrain.models.processing_mmpretrain import MMPretrainProcessor
from tests.data.augment.small_batches import AugmentingConfig
from tests.data.small_dataset import Sample, npy, write_split
from tests.small_tokenizer import small_tokenizer

SIZES = (6, 6)
STEPS = 4
NAMES = ("picture", "caption", "values", "motion")


def lacking(number: int, sample: Sample) -> Sample:
    """Sample i lacks modality i % 5 (4: none), and its motion has i % 6 + 1 time steps of value i."""
    sample = sample | {"motion.npy": npy(np.full((number % 6 + 1, 2), number, np.float32))}
    absent = dict(enumerate(NAMES)).get(number % 5, "nothing")
    return {name: value for name, value in sample.items() if name.partition(".")[0] != absent}


def config(path: Path, *optional: str, **changes: Any) -> Config:
    """Four modalities, of which these are optional."""
    modalities = {
        "picture": ModalityConfig(Kind.image, [4, 6], channels=1),
        "caption": ModalityConfig(Kind.text, max_length=6),
        "values": ModalityConfig(Kind.vector, [3]),
        "motion": ModalityConfig(Kind.sequence, [STEPS, 2]),
    }
    modalities = {name: replace(modality, optional=name in optional) for name, modality in modalities.items()}
    encoders = {name: EncoderConfig("any", tokenizer=small_tokenizer()) for name in NAMES}
    data = DataConfig(
        "small", str(path), modalities=modalities, global_batch=4, window=2, max_bad_fraction=1, **changes
    )
    return Config(method=AugmentingConfig(), data=data, model=ModelConfig(encoders=encoders))


def stream(config: Config, sources: MMPretrainProcessor | None = None) -> Stream:
    """One rank's stream of three samples a batch."""
    return Stream(config.data, "train", 3, 0, 1, build_processor(config), sources=sources)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """12 samples, most of which lack one modality."""
    path = tmp_path_factory.mktemp("lacking")
    write_split(path / "train", SIZES, lacking)
    return path


def check(batch: Batch) -> None:
    """Every row against the number of its sample."""
    for row, number in enumerate(batch.sample_ids.tolist()):
        present = {name: bool(batch.present[name][row]) for name in NAMES}
        assert present == {name: number % 5 != at for at, name in enumerate(NAMES)}
        tensors = {name: {key: t[row] for key, t in batch.inputs[name].items()} for name in NAMES}
        length = min(number % 6 + 1, STEPS) if present["motion"] else 1
        assert tensors["motion"]["attention_mask"].tolist() == [1] * length + [0] * (STEPS - length)
        expected = torch.zeros(STEPS, 2)
        expected[: length if present["motion"] else 0] = number
        assert torch.equal(tensors["motion"]["values"], expected)
        assert tensors["values"]["values"].tolist() == [number * present["values"]] * 3
        assert bool(tensors["picture"]["pixel_values"].any()) == present["picture"]
        assert tensors["caption"]["attention_mask"].sum() == (5 if present["caption"] else 2)


def test_batches_and_splits_say_what_is_there(dataset: Path) -> None:
    batches = [*stream(config(dataset, *NAMES)).batches(0, 6), *stream(config(dataset, *NAMES)).split_batches(4)]
    assert len(batches) == 9
    for batch in batches:
        check(batch)
        assert not batch.replaced and all(tensor.dtype is torch.bool for tensor in batch.present.values())
    halves = batches[0].split(2)
    assert torch.equal(torch.cat([half.present["motion"] for half in halves]), batches[0].present["motion"])


def test_only_optional_modalities_may_be_absent(dataset: Path) -> None:
    for batch in stream(config(dataset, "caption", "motion")).batches(0, 6):
        assert set(batch.present) == {"caption", "motion"}
        assert not set((batch.sample_ids % 5).tolist()) & {0, 2}
        assert all("exactly one is needed" in entry.error for entry in batch.replaced)


def test_a_sample_without_any_modality_is_unfit(tmp_path: Path) -> None:
    def bare(number: int, sample: Sample) -> Sample:
        full = sample | {"motion.npy": npy(np.ones((2, 2), np.float32))}
        return {k: v for k, v in full.items() if k[0] in "_l" or number}

    write_split(tmp_path / "train", (4,), bare)
    (replaced,) = next(stream(config(tmp_path, *NAMES)).batches(0, 1)).replaced
    assert replaced.error == "it has none of its modalities, picture, caption, values, motion"


@pytest.mark.parametrize("shape", [(3,), (2, 3), (0, 2), (2, 2, 2)])
def test_sequences_of_another_shape_are_unfit(tmp_path: Path, shape: tuple[int, ...]) -> None:
    write_split(tmp_path / "train", (4,), lambda n, sample: sample | {"motion.npy": npy(np.ones(shape, np.float32))})
    with pytest.raises(BadDataError, match=r"a sequence needs \[time steps, 2\]"):
        next(stream(config(tmp_path)).batches(0, 1))


def test_preflight_accepts_what_is_optional(dataset: Path) -> None:
    assert check_split(config(dataset, *NAMES).data, "train").problems == ()
    (problem,) = check_split(config(dataset, *NAMES[:-1]).data, "train").problems
    assert "2 of 12 samples have no motion" in problem


def test_sources_come_at_their_load_size_beside_unchanged_inputs(dataset: Path) -> None:
    settings = config(dataset, *NAMES)
    plain = [*stream(settings).batches(0, 3)]
    settings.data.modalities["picture"].load_size = [5, 9]
    sources = build_unaugmented_processor(settings, build_processor(settings))
    assert sources is not None
    for before, batch in zip(plain, stream(settings, sources).batches(0, 3), strict=True):
        assert before.views == {} and set(batch.views["source"]) == {"picture"}
        source, inputs = batch.views["source"]["picture"], batch.inputs["picture"]
        assert source["pixel_values"].shape == (4, 1, 5, 9)
        assert torch.equal(source["present"], inputs["present"])
        assert torch.equal(inputs["pixel_values"], before.inputs["picture"]["pixel_values"])
        # Pictures of one value: the same in any size.
        assert torch.allclose(source["pixel_values"][:, 0, 0, 0], inputs["pixel_values"][:, 0, 0, 0])


def test_sources_are_made_only_where_they_are_used(dataset: Path) -> None:
    settings = config(dataset)
    processor = build_processor(settings)
    assert build_unaugmented_processor(settings, processor) is None
    settings.data.modalities["picture"].load_size = [5, 9]
    settings.method = MethodConfig()
    assert build_unaugmented_processor(settings, processor) is None
    settings.data.modalities["caption"].train = settings.data.modalities["caption"].view
    assert build_unaugmented_processor(settings, processor) is not None
