"""MIMIC: the loader's scaling, order and tasks."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

from mmpretrain.data.info import load_info
from mmpretrain.data.writing import BuildError
from shards.multibench.mimic import build_mimic
from tests.shards.multibench.drawn import array_of, members, mimic_arrays, write_pickle


def test_scaled_and_split_as_the_loader_does(tmp_path: Path) -> None:
    arrays = mimic_arrays()
    build = build_mimic(write_pickle(tmp_path / "im.pk", arrays), tmp_path / "mimic")
    assert build.samples == {"train": 32, "validation": 4, "test": 4}
    series = np.where(np.isfinite(arrays["ep_tdata"]), arrays["ep_tdata"], 0)
    facts = np.where(np.isfinite(arrays["adm_features_all"]), arrays["adm_features_all"], 0)
    order = list(range(40))
    random.seed(10)
    random.shuffle(order)
    found = members(tmp_path / "mimic" / "test")
    assert list(found) == [f"stay-{row:06d}" for row in order[4:8]]
    for row in order[4:8]:
        sample = found[f"stay-{row:06d}"]
        expected = (series[row] - series.mean((0, 1))) / np.where(series.std((0, 1)) > 0, series.std((0, 1)), 1)
        np.testing.assert_allclose(array_of(sample["timeseries.npy"]), expected, rtol=1e-4, atol=1e-6)
        scaled = (facts[row] - facts.mean(0)) / facts.std(0)
        np.testing.assert_allclose(array_of(sample["tabular.npy"]), scaled, rtol=1e-4, atol=1e-6)
        assert sample["label.cls"] == str(int(row % 3 == 7 % 3)).encode()
    info = load_info(tmp_path / "mimic")
    assert info.modalities["timeseries"]["size"] == [24, 12] and len(info.classes or []) == 2


def test_mortality_has_six_classes(tmp_path: Path) -> None:
    build_mimic(write_pickle(tmp_path / "im.pk", mimic_arrays()), tmp_path / "mimic", task=-1)
    found = {
        key: m["label.cls"]
        for part in ("train", "validation", "test")
        for key, m in members(tmp_path / "mimic" / part).items()
    }
    assert found["stay-000003"] == b"2" and sorted(set(found.values())) == [b"0", b"2"]


def test_a_task_that_is_not_there_is_refused(tmp_path: Path) -> None:
    source = write_pickle(tmp_path / "im.pk", mimic_arrays())
    with pytest.raises(BuildError, match=r"--task 20: .* has the groups 0 to 19, and -1 is mortality"):
        build_mimic(source, tmp_path / "mimic", task=20)
