"""MIMIC-III as MultiBench prepared it (``im.pk``): five facts of a stay in hospital, and 24 hours of 12 readings.

As MultiBench's loader does: what is not finite becomes 0, every feature is divided by its deviation from the mean of
*all* samples, those of the test included, and the order of Python's generator with seed 10 gives the first tenth to
validation, the second to the test, the rest to training.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from mmpretrain.data.info import DatasetInfo
from mmpretrain.data.writing import Build, BuildError, Overwrite, RawSample, build_dataset, npy, refuse_overwrite
from shards.multibench.pickled import array_at, read_pickle

MORTALITY = -1
TASK = 7  # the group of ICD-9 codes that CoMM and FactorCL report
SEED = 10


def build_mimic(
    source: Path, out: Path, name: str = "mimic", task: int = TASK, overwrite: Overwrite = Overwrite.same_dataset
) -> Build:
    """Shards with ``tabular`` [5] and ``timeseries`` [24, 12]. task: a group of ICD-9 codes (0 to 19, two classes), or
    -1 for mortality (six classes: within 1, 2, 3 days, a week, a year, or later).

    Raises:
        BuildError: the file is not of this layout, or ``out`` holds something that may not be replaced.
    """
    refuse_overwrite(out.resolve(), name, overwrite)
    content = read_pickle(source)
    series, facts = (_numbers(source, content, *names) for names in (("ep_tdata", 3), ("adm_features_all", 2)))
    labels, classes = _labels(source, content, task)
    if not len(series) == len(facts) == len(labels):
        raise BuildError(
            f"{source}: {len(series)} series, {len(facts)} tables and {len(labels)} labels do not go together"
        )
    if len(labels) < 10:
        raise BuildError(f"{source} has {len(labels)} samples: at least 10 are needed for three splits")
    series, facts = _scaled(series, (0, 1)), _scaled(facts, (0,))
    splits = {split: _samples(rows, facts, series, labels) for split, rows in split_rows(len(labels)).items()}
    info = DatasetInfo(
        name=name,
        title="MIMIC-III: facts of a stay in hospital and its first 24 hours",
        source="the file of MultiBench (arXiv 2107.07502), made of MIMIC-III (PhysioNet, credentialed access)",
        license="terms of the source; do not redistribute",
        modalities={
            "tabular": {"kind": "vector", "size": [facts.shape[1]]},
            "timeseries": {"kind": "sequence", "size": list(series.shape[1:])},
        },
        classes=classes,
        provenance={"task": task, "scaled by": "the mean and deviation of all samples"},
    )
    return build_dataset(out, info, splits, overwrite=overwrite)


def split_rows(count: int) -> dict[str, list[int]]:
    """Split -> rows, as MultiBench's loader shuffles and cuts them."""
    order = list(range(count))
    random.Random(SEED).shuffle(order)
    return {
        "train": order[count // 5 :],
        "validation": order[: count // 10],
        "test": order[count // 10 : count // 5],
    }


def _numbers(source: Path, content: Any, name: str, dimensions: int) -> np.ndarray:
    """float64, not finite values as 0."""
    found = array_at(source, content, name)
    if found.ndim != dimensions or found.dtype.kind not in "biuf":
        raise BuildError(
            f"{source}[{name!r}] has shape {list(found.shape)}: numbers in {dimensions} dimensions are needed"
        )
    values = found.astype(np.float64)
    return np.where(np.isfinite(values), values, 0)


def _scaled(values: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
    """float32 of mean 0 and deviation 1 over ``axes``; 0 where a feature does not vary."""
    deviation = values.std(axis=axes, keepdims=True)
    found = (values - values.mean(axis=axes, keepdims=True)) / np.where(deviation > 0, deviation, 1)
    return found.astype(np.float32)


def _labels(source: Path, content: Any, task: int) -> tuple[np.ndarray, list[str]]:
    """int64 [n], and the names of the classes. Raises BuildError."""
    if task == MORTALITY:
        within = array_at(source, content, "adm_labels_all")
        if within.ndim != 2 or within.shape[1] < 6:
            raise BuildError(f"{source}['adm_labels_all'] has shape {list(within.shape)}: 6 columns are needed")
        columns = within[:, 1:6] > 0
        names = ["later", "1 day", "2 days", "3 days", "1 week", "1 year"]
        return np.where(columns.any(axis=1), columns.argmax(axis=1) + 1, 0).astype(np.int64), names
    codes = array_at(source, content, "y_icd9")
    if codes.ndim != 2 or not 0 <= task < codes.shape[1]:
        raise BuildError(f"--task {task}: {source} has the groups 0 to {codes.shape[-1] - 1}, and -1 is mortality")
    return (codes[:, task] > 0).astype(np.int64), [f"not in group {task}", f"in group {task}"]


def _samples(rows: list[int], facts: np.ndarray, series: np.ndarray, labels: np.ndarray) -> Iterator[RawSample]:
    for row in rows:
        members = {"tabular.npy": npy(facts[row]), "timeseries.npy": npy(series[row])}
        yield {"__key__": f"stay-{row:06d}", **members, "label.cls": str(int(labels[row])).encode()}
