"""Pairs of images with planted content: a digit that both show, and one that each shows alone.

A canvas of 8 x 16 pixels holds two of scikit-learn's scans side by side. On the left of both images of a pair stands
the same class, in different scans; on the right of each a class of its own, drawn independently. So what the images
share lies on the left and only there, and what is each one's own on the right, beside the handwriting of either side.

``shared`` instead of private right halves makes pairs that agree in both classes: what contrastive pretraining needs to
learn features of both digits and of nothing but the digits. Train and test use different scans.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path

import numpy as np
from PIL import Image

from mmpretrain.data.factor_codes import encode_factors
from mmpretrain.data.info import DatasetInfo
from mmpretrain.data.writing import Build, BuildError, Overwrite, RawSample, build_dataset, refuse_overwrite
from shards.digits import FULL_INK, SPLIT_SEED, TEST_FRACTION

SIDE = 8
FACTORS = {"shared": 10, "private_first": 10, "private_second": 10}
SEED = 0


class Right(StrEnum):
    """What stands on the right: a digit of each image's own, or one class in both."""

    private = "private"
    shared = "shared"


TRAIN, TEST = {Right.private: 6_000, Right.shared: 30_000}, 1_500


def choose_right(name: str) -> Right:
    """The kind of right halves of that name. Raises BuildError if there is none."""
    if name not in list(Right):
        raise BuildError(f"right={name}: there are private and shared right halves")
    return Right(name)


def default_folder(right: Right) -> Path:
    """``data/planted``, with ``-pretrain`` for shared right halves."""
    return Path("data") / ("planted" if right is Right.private else "planted-pretrain")


def build_planted(
    out: str | Path,
    right: Right = Right.private,
    train: int | None = None,
    test: int = TEST,
    overwrite: Overwrite = Overwrite.same_dataset,
) -> Build:
    """Build train and test shards: ``first.png``, ``second.png``, labels that are codes of the three classes.

    train: pairs, by default 6000, and 30 000 with shared right halves: each seen a few times only.
    Raises BuildError for counts below 1, or if ``out`` holds something that may not be replaced.
    """
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    train = TRAIN[right] if train is None else train
    if min(train, test) < 1:
        raise BuildError(f"{train} training and {test} test pairs: every split needs at least one")
    info = _info(right)
    refuse_overwrite(Path(out).resolve(), info.name, overwrite)
    scans = load_digits()
    rows = np.arange(len(scans.target))
    halves = train_test_split(rows, test_size=TEST_FRACTION, random_state=SPLIT_SEED, stratify=scans.target)
    splits = {
        split: _samples(scans.images[np.sort(own)], scans.target[np.sort(own)], right, count, number)
        for number, (split, own, count) in enumerate(zip(("train", "test"), halves, (train, test), strict=True))
    }
    return build_dataset(out, info, splits, overwrite=overwrite)


def draw_pairs(targets: np.ndarray, right: Right, count: int, stream: int) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Rows int64 [count, 2 images, 2 halves] of scans with classes ``targets`` [n], and the classes of every pair.

    stream: of random numbers. The two scans of one class in a pair are different ones.
    """
    draw = np.random.default_rng([SEED, stream])
    shared, one, two = draw.integers(10, size=(3, count))
    two = one if right is Right.shared else two
    halves = [_scans(targets, classes, draw) for classes in ((shared, shared), (one, two))]
    return np.stack(halves, axis=2), {"shared": shared, "private_first": one, "private_second": two}


def _scans(targets: np.ndarray, classes: tuple[np.ndarray, np.ndarray], draw: np.random.Generator) -> np.ndarray:
    """int64 [n, 2]: rows of scans of the classes [n] wanted in the first and in the second image."""
    by_class, sizes = np.argsort(targets, kind="stable"), np.bincount(targets)
    starts = np.cumsum(sizes) - sizes
    first, second = (sizes[wanted] for wanted in classes)
    one = (draw.random(len(first)) * first).astype(np.int64)
    # A step of 1 to n - 1 from the first: where the classes are equal the scans never are.
    two = (one + 1 + (draw.random(len(second)) * (second - 1)).astype(np.int64)) % second
    return by_class[np.stack([starts[classes[0]] + one, starts[classes[1]] + two], axis=1)]


def _info(right: Right) -> DatasetInfo:
    image = {"kind": "image", "size": [SIDE, 2 * SIDE], "channels": 1}
    return DatasetInfo(
        name=default_folder(right).name,
        title=f"Pairs of two scanned digits each: left class shared, right class {right.value}",
        source="scikit-learn load_digits: Optical Recognition of Handwritten Digits (UCI), composed by this project",
        license="CC BY 4.0",
        modalities={"first": image, "second": image},
        factors=dict(FACTORS),
    )


def _samples(images: np.ndarray, targets: np.ndarray, right: Right, count: int, stream: int) -> Iterator[RawSample]:
    rows, classes = draw_pairs(targets, right, count, stream)
    codes = encode_factors(classes, FACTORS)
    for number, (pair, code) in enumerate(zip(rows, codes.tolist(), strict=True)):
        first, second = (_png(np.hstack(list(images[halves]))) for halves in pair)
        yield {
            "__key__": f"pair-{number:05d}",
            "first.png": first,
            "second.png": second,
            "label.cls": str(code).encode(),
        }


def _png(ink: np.ndarray) -> bytes:
    """8-bit grey PNG of ink from 0 to 16."""
    file = io.BytesIO()
    Image.fromarray(np.round(ink * (255 / FULL_INK)).astype(np.uint8)).save(file, format="PNG")
    return file.getvalue()
