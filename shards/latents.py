"""FactorCL's synthetic data: two vectors made of shared and of unique latents, with labels of known origin.

Liang et al. 2023 (arXiv 2306.05268), appendix D and the released code, for each sample:

    ws ~ N(0, I/2) [10],  w1, w2 ~ N(0, I/2) [6] each
    x1 = [ws, w1] T1,  x2 = [ws, w2] T2,  entries of T1, T2 uniform in [0, 1), the same for all samples
    v = [ws[:ks], w1[:k1], w2[:k2]],  y = 1 if mean(v) >= 0 else 0

``all`` takes every latent (10, 6, 6), as the code's notebook does. ``ratioR`` takes ten of them, R of ten unique ones,
half of these from either side: (k1 + k2) / (ks + k1 + k2) is R / 10. The code's "non-linear" rule is this linear one.
Its planar-flow rule, with which the paper's figure was probably made, is not here: it has 20 classes, but with entries
from N(2, 1) its tanh saturates, and in three draws of it for each of these labels the three largest classes held 81 to
95 % of all samples, while the smallest ones had fewer than ten or none.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from mmpretrain.data.factor_codes import encode_factors
from mmpretrain.data.info import DatasetInfo
from mmpretrain.data.writing import Build, BuildError, Overwrite, RawSample, build_dataset, npy, refuse_overwrite

SHARED, UNIQUE, FEATURES = 10, 6, 100
SAMPLES = 30_000
TEST_SHARE = 0.2
SEED = 0
# Name -> how many shared latents, unique ones of x1 and unique ones of x2 make the label.
LABELS = {
    "all": (10, 6, 6),
    "ratio0": (10, 0, 0),
    "ratio2": (8, 1, 1),
    "ratio4": (6, 2, 2),
    "ratio6": (4, 3, 3),
    "ratio8": (2, 4, 4),
    "ratio10": (0, 5, 5),
}


def build_latents(
    out: str | Path,
    label: str | None = None,
    samples: int = SAMPLES,
    overwrite: Overwrite = Overwrite.same_dataset,
) -> Build:
    """Build train and test shards: ``first.npy``, ``second.npy`` float32 [100], ``latents.npy`` float32 [22].

    label: the one of :data:`LABELS` that samples carry; None: codes of all of them, for probes.
    Raises BuildError for an unknown label, fewer than 10 samples, or if ``out`` holds something that may not be
    replaced.
    """
    if label is not None and label not in LABELS:
        raise BuildError(f"no label {label!r}: there are {', '.join(LABELS)}")
    if samples < 10:
        raise BuildError(f"{samples} samples cannot be split: 10 are the least")
    info = _info(label)
    refuse_overwrite(Path(out).resolve(), info.name, overwrite)
    latents, first, second = draw_latents(samples)
    values = {name: label_of(latents, *LABELS[name]) for name in info.factors}
    codes = encode_factors(values, info.factors)
    held_out = np.random.default_rng([SEED, 1]).permutation(samples) < round(TEST_SHARE * samples)
    arrays = {"first": first, "second": second, "latents": latents}
    splits = {
        split: _samples(arrays, codes, np.flatnonzero(rows))
        for split, rows in (("train", ~held_out), ("test", held_out))
    }
    return build_dataset(out, info, splits, overwrite=overwrite)


def draw_latents(samples: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """([ws, w1, w2] [n, 22], x1 [n, 100], x2 [n, 100]), float32."""
    draw = np.random.default_rng([SEED, 0])
    maps = draw.random((2, SHARED + UNIQUE, FEATURES))
    latents = draw.normal(scale=np.sqrt(0.5), size=(samples, SHARED + 2 * UNIQUE))
    shared, one, two = np.split(latents, [SHARED, SHARED + UNIQUE], axis=1)
    views = [np.hstack([shared, own]) @ maps[number] for number, own in enumerate((one, two))]
    return latents.astype(np.float32), views[0].astype(np.float32), views[1].astype(np.float32)


def label_of(latents: np.ndarray, shared: int, one: int, two: int) -> np.ndarray:
    """int64 [n]: whether the mean of these many leading latents of each block of [n, 22] is 0 or more."""
    columns = [*range(shared), *range(SHARED, SHARED + one), *range(SHARED + UNIQUE, SHARED + UNIQUE + two)]
    return (latents[:, columns].mean(axis=1) >= 0).astype(np.int64)


def _info(label: str | None) -> DatasetInfo:
    names = list(LABELS) if label is None else [label]
    vector = {"kind": "vector", "size": [FEATURES]}
    return DatasetInfo(
        name="latents" if label is None else f"latents-{label}",
        title="Synthetic vectors with shared and unique latents" + (f", label {label}" if label else ""),
        source="drawn by this project after arXiv 2306.05268, appendix D, and its released code",
        license="Apache-2.0",
        modalities={"first": vector, "second": vector},
        classes=["negative", "positive"] if label else None,
        factors=dict.fromkeys(names, 2),
    )


def _samples(arrays: dict[str, np.ndarray], codes: np.ndarray, rows: np.ndarray) -> Iterator[RawSample]:
    for row in rows.tolist():
        vectors = {f"{name}.npy": npy(values[row]) for name, values in arrays.items()}
        yield {"__key__": f"sample-{row:06d}", **vectors, "label.cls": str(codes[row]).encode()}
