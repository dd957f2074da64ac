"""A linear Gaussian world of two vectors, in which what is shared and what is each one's own is known in closed form.

    h_m = [z_m; 1.5 w_m] M_m + 0.05 noise,    Corr(z_1,i, z_2,i) = 0.9, 0.6,    w_m of 3 and 2 dimensions, all N(0, 1)

M_1 [5, 8] and M_2 [4, 6] are drawn once, from N(0, 1). Of MUCMM (reconstruction), docs/methods/mucmm.md.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from mmpretrain.data.info import DatasetInfo
from mmpretrain.data.writing import Build, Overwrite, RawSample, build_dataset, npy

NAMES = ("first", "second")
CORRELATIONS = np.array([0.9, 0.6])
PRIVATE, WIDTHS = (3, 2), (8, 6)
STRENGTH, NOISE = 1.5, 0.05
SAMPLES = {"train": 16_384, "test": 4_096}
SEED = 0


def build_linear(
    out: str | Path, samples: Mapping[str, int] = SAMPLES, overwrite: Overwrite = Overwrite.same_dataset
) -> Build:
    """Build shards of every split in ``samples`` (how many it gets): ``first.npy`` float32 [8], ``second.npy`` [6].

    Raises BuildError if ``out`` holds something that may not be replaced.
    """
    modalities = {name: {"kind": "vector", "size": [width]} for name, width in zip(NAMES, WIDTHS, strict=True)}
    info = DatasetInfo(
        name="linear",
        title="A linear Gaussian world of two vectors",
        source="drawn by this project",
        license="Apache-2.0",
        modalities=modalities,
    )
    splits = {split: _samples(draw(count, number)) for number, (split, count) in enumerate(samples.items())}
    return build_dataset(out, info, splits, overwrite=overwrite)


def mixing() -> tuple[np.ndarray, np.ndarray]:
    """M_1 [5, 8] and M_2 [4, 6], float64."""
    generator = np.random.default_rng([SEED, 0])
    shared = len(CORRELATIONS)
    first, second = (generator.standard_normal((shared + p, d)) for p, d in zip(PRIVATE, WIDTHS, strict=True))
    return first, second


def population() -> np.ndarray:
    """The covariance of [h_1; h_2], [14, 14]."""
    shared = len(CORRELATIONS)
    scaled = [np.r_[np.ones(shared), np.full(p, STRENGTH)][:, None] * m for p, m in zip(PRIVATE, mixing(), strict=True)]
    own = [m.T @ m + NOISE**2 * np.eye(m.shape[1]) for m in scaled]
    cross = scaled[0][:shared].T @ (CORRELATIONS[:, None] * scaled[1][:shared])
    return np.block([[own[0], cross], [cross.T, own[1]]])


def draw(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """h_1 [count, 8] and h_2 [count, 6], float64; other samples of the same world for each ``seed``."""
    generator = np.random.default_rng([SEED, 1, seed])
    z = generator.standard_normal((count, len(CORRELATIONS)))
    rest = np.sqrt(1 - CORRELATIONS**2) * generator.standard_normal(z.shape)
    sides = []
    for common, private, m in zip((z, CORRELATIONS * z + rest), PRIVATE, mixing(), strict=True):
        latents = np.hstack([common, STRENGTH * generator.standard_normal((count, private))])
        sides.append(latents @ m + NOISE * generator.standard_normal((count, m.shape[1])))
    return sides[0], sides[1]


def _samples(sides: tuple[np.ndarray, np.ndarray]) -> Iterator[RawSample]:
    for row, vectors in enumerate(zip(*sides, strict=True)):
        members = {f"{name}.npy": npy(vector.astype(np.float32)) for name, vector in zip(NAMES, vectors, strict=True)}
        yield {"__key__": f"sample-{row:06d}", **members}
