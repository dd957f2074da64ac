"""The digits cut in two: data for two spaces that never see the same scan, to be connected by their captions.

The training scans of ``shards/digits.py`` are split into two halves of equally many of every class. Folders below OUT:

    left, right             one half's left halves, the other's right halves, each with its captions; test: of all test
                            scans
    captions                the captions of all training scans: the corpus that both spaces embed
    pairs                   left and right of all training scans: what connecting does without

No file but ``pairs`` holds a left half beside the right one of the same scan. Each folder has the tokenizer.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from mmpretrain.data.writing import Build, Overwrite, RawSample, build_dataset, refuse_overwrite
from shards.digits import INFO, raw_samples, split_rows, write_tokenizer

MODALITIES = {
    "left": ("left", "caption"),
    "right": ("right", "caption"),
    "captions": ("caption",),
    "pairs": ("left", "right"),
}


def build_digits_halves(
    out: str | Path, seed: int = 0, overwrite: Overwrite = Overwrite.same_dataset
) -> dict[str, Build]:
    """Build the datasets below ``out``: name -> build.

    seed: of the cut of the training scans; the test scans are always those of the digits.
    Raises BuildError if ``out`` holds something that may not be replaced.
    """
    for name in MODALITIES:
        refuse_overwrite(Path(out, name).resolve(), f"digits-{name}", overwrite)
    rows = split_rows()
    first, second = _halves(rows["train"], seed)
    train = {"left": first, "right": second, "captions": rows["train"], "pairs": rows["train"]}
    return {name: _build(Path(out, name), name, train[name], rows["test"], overwrite) for name in MODALITIES}


def _build(out: Path, name: str, train: np.ndarray, test: np.ndarray, overwrite: Overwrite) -> Build:
    kept = MODALITIES[name]
    info = replace(
        INFO,
        name=f"digits-{name}",
        title=f"Scanned handwritten digits: {' and '.join(kept)}",
        modalities={key: INFO.modalities[key] for key in kept},
    )
    splits = {"train": _samples(train, kept), "test": _samples(test, kept)}
    return build_dataset(out, info, splits, extras=write_tokenizer, overwrite=overwrite)


def _halves(rows: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Scans [n] -> two halves in order, of equally many of every class."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    first, second = train_test_split(rows, test_size=0.5, random_state=seed, stratify=load_digits().target[rows])
    return np.sort(first), np.sort(second)


def _samples(rows: np.ndarray, modalities: tuple[str, ...]) -> Iterator[RawSample]:
    for sample in raw_samples(rows):
        yield {key: value for key, value in sample.items() if _kept(key, modalities)}


def _kept(member: str, modalities: tuple[str, ...]) -> bool:
    return member.partition(".")[0] in (*modalities, "__key__", "label")


def counts(builds: Mapping[str, Build]) -> dict[str, dict[str, int]]:
    """Dataset -> split -> samples."""
    return {name: build.samples for name, build in builds.items()}
