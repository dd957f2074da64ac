"""A world of three modalities, no two spaces of which see the same samples: what connecting spaces is tried on.

For each sample, with 64 cluster centers m_k ~ N(0, I) in R^16 that are the world's:

    z = m_k + 0.6 N(0, I),   s ~ N(0, 1.44 I) [8],   x = tanh([z, s] U) V + 0.05 N(0, I) [32]

z is what the modalities a, b and c of a sample have in common, s each modality's own, U (24 x 64, deviation 1/5) and V
(64 x 32, 1/8) the modality's maps. The folders below OUT are datasets, all of different samples:

    ab, bc, ac              pairs to train a space on (ac: what connecting does without); test: of the triples
    corpus                  b alone, for both spaces
    memory_a, memory_c      a alone and c alone
    triples                 a, b and c; test only
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mmpretrain.data.info import DatasetInfo
from mmpretrain.data.writing import Build, BuildError, Overwrite, RawSample, build_dataset, npy, refuse_overwrite

CENTERS, LATENT, PRIVATE, HIDDEN, FEATURES = 64, 16, 8, 64, 32
SPREAD, PRIVATE_SPREAD, NOISE = 0.6, 1.2, 0.05
TRIPLES = "triples"
DATASETS = {"ab": "ab", "bc": "bc", "ac": "ac", "corpus": "b", "memory_a": "a", "memory_c": "c", TRIPLES: "abc"}
SAMPLES, TEST_SAMPLES = 20_000, 1000
Rows = dict[str, np.ndarray]  # modality -> float32 [n, 32]


@dataclass(frozen=True)
class ThreeModalityWorld:
    """The maps and centers of one world, and where its samples come from."""

    seed: int
    centers: np.ndarray
    maps: Mapping[str, tuple[np.ndarray, np.ndarray]]

    @classmethod
    def of(cls, seed: int) -> ThreeModalityWorld:
        """The same for the same seed."""
        draw = np.random.default_rng([seed, 0])
        centers = draw.normal(size=(CENTERS, LATENT))
        maps = {
            name: (draw.normal(0, 1 / 5, (LATENT + PRIVATE, HIDDEN)), draw.normal(0, 1 / 8, (HIDDEN, FEATURES)))
            for name in "abc"
        }
        return cls(seed, centers, maps)

    def draw(self, dataset: str, count: int) -> Rows:
        """``count`` samples of a dataset; those of other datasets are other ones."""
        draw = np.random.default_rng([self.seed, 1 + list(DATASETS).index(dataset)])
        latents = self.centers[draw.integers(CENTERS, size=count)] + draw.normal(0, SPREAD, (count, LATENT))
        rows: Rows = {}
        for name in DATASETS[dataset]:
            first, second = self.maps[name]
            whole = np.hstack([latents, draw.normal(0, PRIVATE_SPREAD, (count, PRIVATE))])
            rows[name] = np.tanh(whole @ first) @ second + draw.normal(0, NOISE, (count, FEATURES))
        return {name: values.astype(np.float32) for name, values in rows.items()}


def build_world(
    out: str | Path,
    seed: int = 0,
    samples: int = SAMPLES,
    test_samples: int = TEST_SAMPLES,
    overwrite: Overwrite = Overwrite.same_dataset,
) -> dict[str, Build]:
    """Build the datasets of a world below ``out``: name -> build. Members are ``a.npy``, ``b.npy``, ``c.npy``.

    samples: of every dataset to learn from. test_samples: triples, whose pairs also test the spaces.
    Raises BuildError for no samples, or if ``out`` holds something that may not be replaced.
    """
    if min(samples, test_samples) < 1:
        raise BuildError(f"{samples} samples and {test_samples} triples: at least one of each is needed")
    world = ThreeModalityWorld.of(seed)
    for dataset in DATASETS:
        refuse_overwrite(Path(out, dataset).resolve(), _info(world, dataset).name, overwrite)
    triples = world.draw(TRIPLES, test_samples)
    builds = {}
    for dataset, modalities in DATASETS.items():
        splits = {} if dataset == TRIPLES else {"train": _samples(world.draw(dataset, samples), dataset)}
        if len(modalities) > 1:
            splits["test"] = _samples({name: triples[name] for name in modalities}, TRIPLES)
        builds[dataset] = build_dataset(Path(out, dataset), _info(world, dataset), splits, overwrite=overwrite)
    return builds


def _info(world: ThreeModalityWorld, dataset: str) -> DatasetInfo:
    return DatasetInfo(
        name=f"world{world.seed}-{dataset.replace('_', '-')}",
        title=f"Synthetic world {world.seed} of three modalities, {dataset.replace('_', ' ')}",
        source="drawn by this project",
        license="Apache-2.0",
        modalities={name: {"kind": "vector", "size": [FEATURES]} for name in DATASETS[dataset]},
    )


def _samples(rows: Rows, dataset: str) -> Iterator[RawSample]:
    for number in range(len(next(iter(rows.values())))):
        vectors = {f"{name}.npy": npy(values[number]) for name, values in rows.items()}
        yield {"__key__": f"{dataset}-{number:06d}", **vectors}
