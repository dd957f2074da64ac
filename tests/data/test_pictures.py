"""Pictures read straight into a batch: those of a release, and in training what is cut out of them as they lie."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mmpretrain.config.augment import AugmentConfig
from mmpretrain.config.data import DataConfig, Decoding, Kind, ModalityConfig
from mmpretrain.data.augment import Augmenter
from mmpretrain.data.augment.boxes import Box, BoxDraws
from mmpretrain.data.pictures import PictureReader, Training
from mmpretrain.data.step import Step
from mmpretrain.data.stream import Stream
from mmpretrain.models.processing_mmpretrain import MMPretrainProcessor
from tests.data.augment.small_batches import config as augmenting
from tests.data.kinds.test_jpeg import jpeg
from tests.data.small_dataset import Sample, write_split
from tests.models.test_images import FORMATS, WITH_EXIF, drawn, written

SIZE = [24, 24]


def reader(decoding: Decoding = Decoding.scaled, **entry: Any) -> PictureReader:
    """Of pictures of 24 x 24 pixels in color."""
    modality = ModalityConfig(Kind.image, SIZE, decoding=decoding)
    return PictureReader("x", {"kind": "image", "size": SIZE, "channels": 3} | entry, None, modality)


def detailed(width: int, height: int, **options: Any) -> bytes:
    """A JPEG with detail as in photos: the finer, the fainter (noise of 2, 4 ... 64 pixels, as strong as wide)."""
    rng, total = np.random.default_rng(0), np.zeros((height, width, 3))
    for grain in (1, 2, 4, 8, 16, 32, 64):
        noise = rng.normal(0, 1, (3, -(-height // grain) + 1, -(-width // grain) + 1)).astype(np.float32)
        layers = [Image.fromarray(n).resize((width, height), Image.Resampling.BICUBIC) for n in noise]
        total += grain * np.stack([np.asarray(layer) for layer in layers], axis=-1)
    pixels = (127 + 45 * total / total.std()).clip(0, 255).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=90, **options)
    return file.getvalue()


def read(found: PictureReader, data: bytes, box: Box | None = None, training: bool = True) -> np.ndarray:
    """The picture, or this part of it, at the reader's size."""
    (rows,) = found.rows(1)
    found.read(data, [rows[0]], lambda *picture: box, training)
    return rows[0]


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_pixels_are_those_of_the_released_processor_to_the_bit(data: st.DataObject) -> None:
    form = data.draw(st.sampled_from(sorted(FORMATS)))
    mode = data.draw(st.sampled_from(FORMATS[form]))
    width, height = data.draw(st.integers(1, 60)), data.draw(st.integers(1, 60))
    orientation = data.draw(st.integers(0, 9)) if form in WITH_EXIF else 1
    content = written(drawn(mode, width * height, width, height), form, orientation)
    entry: dict[str, Any] = {
        "channels": data.draw(st.sampled_from([1, 3])),
        "resize": data.draw(st.sampled_from(["crop", "pad", "squash"])),
        "background": data.draw(st.sampled_from(["white", "#102030"])),
    }
    processor = MMPretrainProcessor({"x": {"kind": "image", "size": SIZE, **entry}})
    released = processor.encoded(x=Image.open(io.BytesIO(content)))["x"]["pixels"][0].numpy()
    assert np.array_equal(read(reader(**entry), content, training=False), released)


@pytest.mark.parametrize("form", ["JPEG", "PNG"])
def test_a_box_is_cut_out_of_the_picture_as_it_lies(form: str) -> None:
    content = written(drawn("RGB", 0, 90, 70), form)
    box = Box(10, 20, 40, 50)
    part = Image.open(io.BytesIO(content)).convert("RGB").crop((20, 10, 70, 50))
    right = np.asarray(part.resize((24, 24), Image.Resampling.BICUBIC)).astype(int)
    assert np.abs(read(reader(Decoding.exact), content, box) - right).max() <= 2


@pytest.mark.parametrize("way", [{}, {"subsampling": 0}, {"progressive": True}])
def test_a_scaled_decoding_stays_close_to_the_exact_one(way: dict[str, Any]) -> None:
    data, errors = detailed(900, 700, **way), []
    size: dict[str, Any] = {"size": [112, 112]}
    for box in (None, Box(0, 0, 700, 900), Box(48, 80, 400, 504), Box(16, 8, 336, 340)):  # by 4, 4, 2 and 2
        exact = read(reader(Decoding.exact, **size), data, box).astype(int)
        errors.append(np.abs(read(reader(**size), data, box) - exact))
        assert errors[-1].any()
    levels = np.stack(errors)
    assert levels.mean() < 0.7 and np.percentile(levels, 99) <= 3 and levels.max() <= 6, levels.mean()


def test_what_would_be_too_small_or_moved_is_not_shrunk_and_nothing_is_for_evaluation(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[int] = []
    monkeypatch.setattr(
        "mmpretrain.data.pictures.jpeg_pixels", lambda data, header, channels, factor: asked.append(factor)
    )
    data, odd, small = jpeg(size=(500, 400)), jpeg(size=(501, 400)), Box(0, 0, 71, 71)
    for found, content, box in (
        (reader(), data, small),
        (reader(Decoding.exact), data, Box(0, 0, 400, 400)),
        (reader(Decoding.exact), data, None),
        (reader(), odd, None),
        (reader(size=[267, 267]), data, None),
        (reader(shortest_edge=267), data, None),
    ):
        read(found, content, box)
    read(reader(), data, training=False)
    assert asked == [1] * 7
    read(reader(), data)
    assert asked[-1] == 4  # 500 is no multiple of 8


def photos(folder: Path) -> None:
    """Six JPEGs of 60 x 40 pixels, with a vector each."""

    def photo(number: int, sample: Sample) -> Sample:
        return {
            "__key__": sample["__key__"],
            "x.jpg": jpeg(size=(60, 40), seed=number, quality=95),
            "v.npy": sample["values.npy"],
        }

    write_split(folder / "train", (6,), photo)


def run(folder: Path, **train: Any) -> tuple[Any, MMPretrainProcessor]:
    """A config of such data, whose pictures training augments so, and its processor."""
    found = augmenting(
        x=ModalityConfig(Kind.image, SIZE, train=AugmentConfig(**train)),
        v=ModalityConfig(Kind.vector, [3]),
        views=False,
    )
    found.data = DataConfig("photos", str(folder), modalities=found.data.modalities, global_batch=6)
    entries: dict[str, dict[str, Any]] = {
        "x": {"kind": "image", "size": SIZE, "channels": 3},
        "v": {"kind": "vector", "size": [3]},
    }
    return found, MMPretrainProcessor(entries)


def test_training_cuts_its_crops_while_reading_and_evaluation_does_not(tmp_path: Path) -> None:
    photos(tmp_path)
    config, processor = run(tmp_path, crop=[0.3, 0.6])
    training = Training.of(config, processor)
    there = Stream(config.data, "train", 0, 0, 1, processor, training=training)
    (batch,) = there.batches(0, 1)
    assert batch.cropped == {"x"}
    draws = BoxDraws(config.data.modalities["x"].train, config.seed, "x", batch.positions.numpy())
    augmented = Augmenter(config, processor).training_inputs(batch, Step(0, 0, 1, config.seed))
    for row, ordinal in enumerate(batch.sample_ids.tolist()):
        box = draws.box(row, 40, 60, 1.5)
        assert box is not None
        part = Image.open(io.BytesIO(jpeg(size=(60, 40), seed=ordinal, quality=95))).crop(
            (box.left, box.top, box.left + box.width, box.top + box.height)
        )
        right = np.asarray(part.resize((24, 24), Image.Resampling.BICUBIC)).transpose(2, 0, 1)
        levels = (augmented.inputs["x"]["pixel_values"][row] + 1) * 127.5
        assert (levels - torch.from_numpy(right.copy())).abs().max() < 2.01
    (whole,) = there.split_batches(6)
    (plain,) = Stream(config.data, "train", 0, 0, 1, processor).split_batches(6)
    assert not whole.cropped and torch.equal(whole.inputs["x"]["pixel_values"], plain.inputs["x"]["pixel_values"])


def test_where_the_device_needs_the_whole_picture_nothing_is_cut_out_before(tmp_path: Path) -> None:
    config, processor = run(tmp_path, crop=[0.3, 0.6])
    assert list(Training.of(config, processor).crops) == ["x"]
    processor.modalities["x"]["resize"] = "pad"
    assert not Training.of(config, processor).crops
    processor.modalities["x"]["resize"] = "crop"
    config.data.modalities["x"].load_size = [30, 30]
    assert not Training.of(config, processor).crops
    config, processor = run(tmp_path, flip=0.5)
    assert not Training.of(config, processor).crops


def test_loader_processes_hand_over_bytes_that_no_encoder_takes(tmp_path: Path) -> None:
    photos(tmp_path)
    config, processor = run(tmp_path)
    there = Stream(config.data, "train", 0, 0, 1, processor)
    made = there._batcher.batch(*there.plan.slice(0, 0, 1))
    assert made.inputs["x"].keys() == {"pixels"} and made.inputs["x"]["pixels"].dtype is torch.uint8
    with pytest.raises(KeyError, match="pixel_values"):
        Augmenter(config, processor).training_inputs(made, Step(0, 0, 1, 0))
    (batch,) = there.batches(0, 1)
    assert torch.equal(batch.inputs["x"]["pixel_values"], there._batcher.finished(made).inputs["x"]["pixel_values"])
