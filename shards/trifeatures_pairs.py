"""Factors, split and pairs of bimodal Trifeatures, without a pixel.

Dufumier et al. 2025 (arXiv 2409.07402), after Hermann & Lampinen 2020: an image is one of n shapes with one of n
textures in one of n colors. A pair of images has one shape (redundancy); textures and colors are each image's own
(uniqueness); whether the color of the second is the one that a fixed bijection M gives to the texture of the first is
known from both together only (synergy).

Split, M, rendering and choice of pairs have random streams of their own. In the released code rendering shares M's, so
that the labels of its first run contradict those of later ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np

SHAPES = ("triangle", "square", "plus", "circle", "tee", "rhombus", "pentagon", "star", "fivesquare", "trapezoid")
TEXTURES = ("solid", "stripes", "grid", "hexgrid", "dots", "noise", "triangles", "zigzags", "rain", "pluses")
COLORS = {
    "red": (1.0, 0.0, 0.0),
    "green": (0.0, 1.0, 0.0),
    "blue": (0.0, 0.0, 1.0),
    "yellow": (1.0, 1.0, 0.0),
    "pink": (1.0, 0.4, 1.0),
    "cyan": (0.0, 1.0, 1.0),
    "purple": (0.3, 0.0, 0.5),
    "ocean": (0.1, 0.4, 0.5),
    "orange": (1.0, 0.6, 0.0),
    "white": (1.0, 1.0, 1.0),
}
SEED = 42  # the published one, of the split and of M
TEST_SHARE = 0.2


class Pairs(StrEnum):
    """Which pairs pretraining sees: all of one shape, or of these only those whose colors and textures obey M."""

    unbiased = "unbiased"
    biased = "biased"


@dataclass(frozen=True)
class Levels:
    """The values of the three factors, equally many (n) of each, and how often each combination is rendered."""

    shapes: tuple[str, ...]
    textures: tuple[str, ...]
    colors: tuple[str, ...]
    train_renderings: int
    test_renderings: int

    @property
    def count(self) -> int:
        """n."""
        return len(self.shapes)

    def mapping(self) -> np.ndarray:
        """int64 [n], M: number of a texture -> number of its color."""
        return np.random.default_rng(SEED).permutation(self.count)

    def factors(self) -> dict[str, int]:
        """What a pair is labeled with, and how many classes each factor has."""
        own = dict.fromkeys(("shape", "texture1", "texture2", "colour1", "colour2"), self.count)
        return {**own, "synergy": 2}


PUBLISHED = Levels(SHAPES, TEXTURES, tuple(COLORS), train_renderings=3, test_renderings=1)
# So few and so coarse that they can be told apart in 32 pixels.
SMALL = Levels(
    shapes=("square", "plus", "circle", "triangle", "fivesquare"),
    textures=("solid", "stripes", "grid", "dots", "zigzags"),
    colors=("red", "green", "blue", "yellow", "cyan"),
    train_renderings=16,
    test_renderings=16,
)


@dataclass(frozen=True)
class Images:
    """What is to be rendered: shape, texture, color: int64 [n] each, numbers in the levels."""

    shape: np.ndarray
    texture: np.ndarray
    color: np.ndarray

    def __len__(self) -> int:
        return len(self.shape)


def split_images(levels: Levels) -> tuple[Images, Images]:
    """The images of train and test, which have no combination of factors in common."""
    n = levels.count
    test = np.zeros(n**3, np.int64)
    test[: round(TEST_SHARE * n**3)] = 1
    np.random.default_rng(SEED).shuffle(test)
    chosen = (np.flatnonzero(test == 0), levels.train_renderings), (np.flatnonzero(test), levels.test_renderings)
    train, held_out = (Images(*np.unravel_index(np.repeat(c, times), (n, n, n))) for c, times in chosen)
    return train, held_out


def allowed_pairs(images: Images, mapping: np.ndarray, pairs: Pairs) -> np.ndarray:
    """int64 [p, 2]: rows of all ordered pairs of one shape, an image with itself included; biased: that obey M."""
    found = []
    for shape in np.unique(images.shape):
        rows = np.flatnonzero(images.shape == shape)
        found.append(np.stack(np.meshgrid(rows, rows, indexing="ij"), axis=-1).reshape(-1, 2))
    both = np.concatenate(found)
    return both if pairs is Pairs.unbiased else both[obeys(images, both, mapping)]


def choose_pairs(allowed: np.ndarray, count: int, stream: int) -> np.ndarray:
    """``count`` of ``allowed`` [p, 2], or all if there are fewer, in random order. stream: of random numbers."""
    draw = np.random.default_rng([SEED, stream])
    return allowed[draw.choice(len(allowed), size=min(count, len(allowed)), replace=False)]


def obeys(images: Images, pairs: np.ndarray, mapping: np.ndarray) -> np.ndarray:
    """bool [p]: the second image of each of ``pairs`` [p, 2] has the color of the first one's texture."""
    return images.color[pairs[:, 1]] == mapping[images.texture[pairs[:, 0]]]


def pair_factors(images: Images, pairs: np.ndarray, mapping: np.ndarray) -> dict[str, np.ndarray]:
    """Every factor of :meth:`Levels.factors` for each of ``pairs`` [p, 2]: int64 [p]."""
    first, second = pairs[:, 0], pairs[:, 1]
    return {
        "shape": images.shape[first],
        "texture1": images.texture[first],
        "texture2": images.texture[second],
        "colour1": images.color[first],
        "colour2": images.color[second],
        "synergy": obeys(images, pairs, mapping).astype(np.int64),
    }
