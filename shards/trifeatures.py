"""Bimodal Trifeatures: pairs of rendered images whose redundant, unique and synergistic factors are known.

Published size: 10 levels of shape, texture and color, 224 pixels, 10 000 pairs (arXiv 2409.07402, section 4.1). Small
size, for CPUs: 5 levels, 40 pixels. Factors and pairs: trifeatures_pairs.py; pixels: trifeatures_render.py.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import IntEnum
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mmpretrain.data.factor_codes import encode_factors
from mmpretrain.data.info import DatasetInfo
from mmpretrain.data.writing import Build, BuildError, Overwrite, RawSample, build_dataset, refuse_overwrite
from shards.trifeatures_pairs import (
    PUBLISHED,
    SEED,
    SMALL,
    Images,
    Levels,
    Pairs,
    allowed_pairs,
    choose_pairs,
    pair_factors,
    split_images,
)
from shards.trifeatures_render import PUBLISHED_SIDE, render_coarse, render_published

SMALLEST_SIDE = 16


class RandomStream(IntEnum):
    """Independent streams of random numbers."""

    train_images = 1
    test_images = 2
    train_pairs = 3
    probe_pairs = 4
    test_pairs = 5


@dataclass(frozen=True)
class Size:
    """levels; side: of the images in pixels; train, probe, test: numbers of pairs.

    The small setting was published with pairs drawn afresh in every epoch; shards hold a fixed number, three times an
    epoch of it.
    """

    levels: Levels
    side: int
    train: int
    probe: int
    test: int


SIZES = {
    5: Size(SMALL, side=40, train=30_000, probe=6_000, test=8_000),
    10: Size(PUBLISHED, side=PUBLISHED_SIDE, train=10_000, probe=10_000, test=10_000),
}


def choose_size(levels: int, pairs: str, **changes: int | None) -> tuple[Size, Pairs]:
    """The size of that many levels with ``changes`` (those that are not None), and the kind of pairs, by their names.

    Raises BuildError for levels or pairs that there are not.
    """
    if levels not in SIZES or pairs not in list(Pairs):
        raise BuildError(f"levels={levels}, pairs={pairs}: there are levels 5 and 10, pairs unbiased and biased")
    given: dict[str, Any] = {key: value for key, value in changes.items() if value is not None}
    return replace(SIZES[levels], **given), Pairs(pairs)


def default_folder(size: Size, pairs: Pairs) -> Path:
    """``data/trifeatures``, with ``-paper`` for the published levels and ``-biased`` for biased pairs."""
    name = "trifeatures" + "-paper" * (size.levels.count == PUBLISHED.count) + "-biased" * (pairs is Pairs.biased)
    return Path("data") / name


def build_trifeatures(
    out: str | Path, size: Size, pairs: Pairs, overwrite: Overwrite = Overwrite.same_dataset
) -> Build:
    """Build ``train`` (pretraining pairs), ``probe`` and ``test`` (unbiased pairs of the train and the test images).

    pairs: what pretraining sees. Labels are codes of the factors. Where fewer pairs exist than wanted, all are taken.
    Raises BuildError for images or counts that are too small, and if ``out`` holds something that may not be replaced.
    """
    info = _info(size, pairs)
    refuse_overwrite(Path(out).resolve(), info.name, overwrite)
    if size.side < SMALLEST_SIDE or min(size.train, size.probe, size.test) < 1:
        raise BuildError(f"images need at least {SMALLEST_SIDE} pixels, and every split at least one pair")
    train, test = split_images(size.levels)
    seen, held_out = _render(train, size, RandomStream.train_images), _render(test, size, RandomStream.test_images)
    splits = {
        "train": _samples(train, seen, size.levels, pairs, size.train, RandomStream.train_pairs),
        "probe": _samples(train, seen, size.levels, Pairs.unbiased, size.probe, RandomStream.probe_pairs),
        "test": _samples(test, held_out, size.levels, Pairs.unbiased, size.test, RandomStream.test_pairs),
    }
    return build_dataset(out, info, splits, overwrite=overwrite)


def _info(size: Size, pairs: Pairs) -> DatasetInfo:
    image = {"kind": "image", "size": [size.side, size.side], "channels": 3}
    return DatasetInfo(
        name=f"trifeatures-{size.levels.count}-{pairs.value}",
        title=f"Bimodal Trifeatures, {size.levels.count} levels, {pairs.value} pretraining pairs",
        source="rendered by this project after arXiv 2409.07402 and Hermann & Lampinen 2020",
        license="Apache-2.0",
        modalities={"first": image, "second": image},
        factors=size.levels.factors(),
    )


def _render(images: Images, size: Size, stream: RandomStream) -> list[bytes]:
    """PNG of each image."""
    draw = np.random.default_rng([SEED, stream])
    render = render_coarse if size.levels.count == SMALL.count else render_published
    return [_png(pixels) for pixels in render(images, size.levels, draw, size.side)]


def _samples(
    images: Images, pictures: list[bytes], levels: Levels, pairs: Pairs, count: int, stream: RandomStream
) -> Iterator[RawSample]:
    mapping = levels.mapping()
    chosen = choose_pairs(allowed_pairs(images, mapping, pairs), count, stream)
    codes = encode_factors(pair_factors(images, chosen, mapping), levels.factors())
    for number, ((first, second), code) in enumerate(zip(chosen.tolist(), codes.tolist(), strict=True)):
        members = {"first.png": pictures[first], "second.png": pictures[second], "label.cls": str(code).encode()}
        yield {"__key__": f"pair-{number:06d}", **members}


def _png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format="PNG")
    return file.getvalue()
