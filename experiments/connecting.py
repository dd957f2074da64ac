"""What the experiments on connected spaces share: stored vectors, true pairs, maps in closed form, retrieval."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from mmpretrain.data.info import DatasetInfo
from mmpretrain.data.writing import RawSample, build_dataset, npy
from mmpretrain.distributed.world import World
from mmpretrain.embedding.encode import embed_share
from mmpretrain.embedding.jobs import EmbedJob, PairJob
from mmpretrain.embedding.pairing import pair_share
from mmpretrain.embedding.vectors import Vectors
from mmpretrain.evaluation.retrieval import exact_scores, pair_places
from mmpretrain.evaluation.similarity import unit_rows

SPACES = ("first", "second")
UNCONNECTED = "spaces as they are"


def read(folder: Path, split: str, modality: str) -> np.ndarray:
    """float32 [n, d]: the vectors of a modality."""
    vectors = Vectors(str(folder), split, modality)
    return vectors.read(vectors.ordinals).numpy()


def embedded(out: Path, release: Path, data: Path, split: str = "train") -> Path:
    """``out``: a dataset as a release embeds it, as `mmpretrain embed` does; made if it is missing."""
    if not (out / split / "index.json").exists():
        embed_share(EmbedJob(str(out), split, release=str(release), data=str(data)), 0, 1, torch.device("cpu"))
    return out


def paired(out: Path, shared: str, corpora: Mapping[str, Path], memories: Mapping[str, str]) -> Path:
    """``out``: pseudo pairs, as `mmpretrain pair` makes them; made if they are missing. corpora, memories: space -> its
    folder (of a memory with several modalities FOLDER:MODALITY)."""
    if not (out / "train" / "index.json").exists():
        first, second = (str(corpora[space]) for space in SPACES)
        job = PairJob(str(out), shared=shared, first=first, second=second)
        job = replace(job, first_memory=memories["first"], second_memory=memories["second"])
        pair_share(job, World.single())
    return out


def true_pairs(out: Path, rows: Mapping[str, np.ndarray], what: str) -> Path:
    """``out``: true pairs in the form of pseudo pairs, each its own partner; made if they are missing.

    rows: space -> [n, d], pair by pair. what: of what they are, for the title.
    """
    if not (out / "dataset.json").exists():
        vectors = {
            f"{s}_{r}": {"kind": "vector", "size": [v.shape[1]]} for s, v in rows.items() for r in ("shared", "partner")
        }
        info = DatasetInfo("true-pairs", f"True pairs of {what}", "drawn by this project", "Apache-2.0", vectors)
        build_dataset(out, info, {"train": _samples(rows)})
    return out


def recalls(queries: np.ndarray, items: np.ndarray, ks: tuple[int, ...] = (1, 5)) -> tuple[float, ...]:
    """recall@k of the items [n, d] from the queries [n, d], row by row, for each of ``ks``."""
    scores = exact_scores(*pair_places(unit_rows(queries), unit_rows(items)), ks)
    return tuple(scores[f"recall@{k}"] for k in ks)


def closed_forms(pairs: Path) -> dict[str, np.ndarray | None]:
    """Maps [d, d] from the first space to the second, in closed form from the pairs that C-MCR trains on; None: none.

    Of the shared rows: orthogonal Procrustes and least squares; of the partners: least squares.
    """
    names = [f"{space}_{role}" for role in ("shared", "partner") for space in SPACES]
    shared1, shared2, partner1, partner2 = (read(pairs, "train", name) for name in names)
    left, _, right = np.linalg.svd(shared1.T @ shared2)
    return {
        UNCONNECTED: None,
        "orthogonal Procrustes": left @ right,
        "least squares": np.linalg.lstsq(shared1, shared2, rcond=None)[0],
        "least squares on partners": np.linalg.lstsq(partner1, partner2, rcond=None)[0],
    }


def ridge(pairs: Path) -> np.ndarray:
    """The map [d, d] of ridge regression from the shared rows of the first space to those of the second.

    Its strength is chosen by leaving one shared row out at a time, each different one counting once: no copy of a row
    that is left out tells what it is.
    """
    from sklearn.linear_model import RidgeCV

    first, second = (read(pairs, "train", f"{space}_shared") for space in SPACES)
    kept = np.unique(first, axis=0, return_index=True)[1]
    found = RidgeCV(np.logspace(-4, 2, 13), fit_intercept=False).fit(first[kept], second[kept])
    return found.coef_.T


def mapped(rows: np.ndarray, matrix: np.ndarray | None) -> np.ndarray:
    """Rows [n, d] through one of the maps."""
    return rows if matrix is None else rows @ matrix


def _samples(rows: Mapping[str, np.ndarray]) -> Iterator[RawSample]:
    for number in range(len(rows["first"])):
        vectors = {f"{s}_{r}.npy": npy(v[number]) for s, v in rows.items() for r in ("shared", "partner")}
        yield {"__key__": f"pair-{number:06d}", **vectors}
