"""Multi-omics folders (the layout of the MOGONET benchmark): aligned CSV matrices become vectors with labels."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mmpretrain.data.info import DatasetInfo
from mmpretrain.data.writing import Build, BuildError, Overwrite, RawSample, build_dataset, npy, refuse_overwrite
from shards.matrix import find_csv, read_feature_names, read_matrix

VIEWS = ("mrna", "methylation", "mirna")
SPLITS = ("tr", "te")


@dataclass(frozen=True)
class _Known:
    """What is known about a benchmark of this layout."""

    title: str
    source: str
    classes: tuple[str, ...]


_MOGONET = "matrices preprocessed by github.com/txWang/MOGONET from"
KNOWN = {
    "rosmap": _Known(
        "ROSMAP: Alzheimer's disease from mRNA, DNA methylation and miRNA",
        f"{_MOGONET} ROSMAP (AD Knowledge Portal, syn3219045)",
        ("normal control", "Alzheimer's disease"),
    ),
    "brca": _Known(
        "BRCA: PAM50 subtype of breast cancer from mRNA, DNA methylation and miRNA",
        f"{_MOGONET} TCGA-BRCA (open-access tiers)",
        ("normal-like", "basal-like", "HER2-enriched", "luminal A", "luminal B"),
    ),
}


@dataclass(frozen=True)
class _Split:
    """views: name -> float32 [n, features]; labels: int64 [n]."""

    views: dict[str, np.ndarray]
    labels: np.ndarray


def build_omics(
    source: str | Path,
    out: str | Path = "data/rosmap",
    name: str = "rosmap",
    views: Sequence[str] = VIEWS,
    overwrite: Overwrite = Overwrite.same_dataset,
) -> Build:
    """Build shards from ``{1,2,...}_{tr,te}.csv[.gz]`` and ``labels_{tr,te}.csv[.gz]`` in ``source``.

    The matrices have one row per sample, in the same order in every view, and no header (or one of feature names).
    views: name of view 1, 2, ...; those without files are left out, two are needed.

    Raises:
        BuildError: a file is missing or not what it should be (names file, row and expected shape), or ``out``
            holds something that may not be replaced.
    """
    refuse_overwrite(Path(out).resolve(), name, overwrite)
    folder = Path(source)
    numbers = _present_views(folder, views)
    features: dict[str, list[str]] = {}
    train = _read_split(folder, "tr", numbers, features)
    test = _read_split(folder, "te", numbers, features)
    _check_across(folder, train, test)
    info = _info(name, folder, train, features)
    splits = {"train": _samples(f"{name}-tr", train), "test": _samples(f"{name}-te", test)}
    return build_dataset(out, info, splits, overwrite=overwrite)


def _present_views(folder: Path, views: Sequence[str]) -> dict[str, int]:
    """View name -> its number, for the views that have files."""
    if not folder.is_dir():
        raise BuildError(f"{folder} is no folder: name the one that holds 1_tr.csv, 2_tr.csv, labels_tr.csv ...")
    bad = [view for view in views if not view.isidentifier() or view == "label"]
    if bad or len(set(views)) != len(views):
        raise BuildError(f"view names {', '.join(views)}: use different plain identifiers other than 'label'")
    found = {}
    for number, view in enumerate(views, start=1):
        splits = [split for split in SPLITS if find_csv(folder, f"{number}_{split}")]
        if len(splits) == 1:
            missing = next(split for split in SPLITS if split not in splits)
            raise BuildError(f"{folder}/{number}_{missing}.csv[.gz] is missing, but {number}_{splits[0]} is there")
        if splits:
            found[view] = number
    if len(found) < 2:
        raise BuildError(f"{folder}: {len(found)} views have files ({{1,2,...}}_{{tr,te}}.csv[.gz]), 2 are needed")
    return found


def _read_split(folder: Path, split: str, numbers: dict[str, int], features: dict[str, list[str]]) -> _Split:
    """All views and labels of one split; fills in the feature names that a header or a name file gives."""
    views = {}
    for view, number in numbers.items():
        path = find_csv(folder, f"{number}_{split}")
        assert path is not None
        views[view], header = read_matrix(path)
        names = header or read_feature_names(folder, number, views[view].shape[1])
        if names:
            features.setdefault(view, names)
    labels = _labels(folder, split)
    for view, number in numbers.items():
        if len(views[view]) != len(labels):
            raise BuildError(
                f"{find_csv(folder, f'{number}_{split}')} has {len(views[view])} rows, but labels_{split} has"
                f" {len(labels)}: the same samples in the same order are needed"
            )
    return _Split(views, labels)


def _labels(folder: Path, split: str) -> np.ndarray:
    """int64 [n] class numbers from 0."""
    path = find_csv(folder, f"labels_{split}")
    if path is None:
        raise BuildError(f"{folder}/labels_{split}.csv[.gz] is missing: one class number (0, 1, ...) per row")
    values, header = read_matrix(path)
    if values.shape[1] != 1:
        raise BuildError(f"{path} has {values.shape[1]} columns: expected shape ({len(values)}, 1)")
    bad = np.flatnonzero((values[:, 0] < 0) | (values[:, 0] != np.round(values[:, 0])))
    if len(bad):
        row = int(bad[0])
        raise BuildError(
            f"{path} row {row + 1 + (header is not None)}: {values[row, 0]} is no class number (0, 1, ...)"
        )
    return values[:, 0].astype(np.int64)


def _check_across(folder: Path, train: _Split, test: _Split) -> None:
    """The test split must fit the train split."""
    for view, values in train.views.items():
        if test.views[view].shape[1] != values.shape[1]:
            raise BuildError(
                f"{folder}: view {view} has {values.shape[1]} columns in train and {test.views[view].shape[1]} in test"
            )
    present = np.unique(train.labels).tolist()
    unseen = sorted(set(test.labels.tolist()) - set(present))
    absent = [number for number, label in enumerate(present) if label != number][:1] + unseen
    if absent:
        raise BuildError(f"{folder}/labels_tr has no sample of class {absent[0]}: number the classes from 0 on")


def _info(name: str, folder: Path, train: _Split, features: dict[str, list[str]]) -> DatasetInfo:
    count = int(train.labels.max()) + 1
    known = KNOWN.get(name)
    classes = list(known.classes) if known and len(known.classes) == count else [str(i) for i in range(count)]
    statistics = {
        view: {"minimum": values.min(axis=0).tolist(), "maximum": values.max(axis=0).tolist()}
        for view, values in train.views.items()
    }
    return DatasetInfo(
        name=name,
        title=known.title if known else f"{name}: {', '.join(train.views)}",
        source=known.source if known else folder.resolve().name,
        license="terms of the source; do not redistribute",
        modalities={view: {"kind": "vector", "size": [v.shape[1]]} for view, v in train.views.items()},
        classes=classes,
        statistics=statistics,
        features=features,
    )


def _samples(prefix: str, split: _Split) -> Iterator[RawSample]:
    prefix = re.sub(r"[^A-Za-z0-9-]", "-", prefix)
    for row, label in enumerate(split.labels.tolist()):
        vectors = {f"{view}.npy": npy(values[row]) for view, values in split.views.items()}
        yield {"__key__": f"{prefix}-{row:06d}", **vectors, "label.cls": str(label).encode()}
