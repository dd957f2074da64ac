"""FactorCL's synthetic vectors: made as the paper says, with labels that follow from the latents."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from mmpretrain.data.factor_codes import decode_factors
from mmpretrain.data.index import load_index
from mmpretrain.data.info import load_info
from mmpretrain.data.reader import Reader
from mmpretrain.data.writing import BuildError
from shards.cli import app
from shards.latents import LABELS, build_latents, draw_latents, label_of


def read(folder: Path) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Arrays by name, and labels, of one split."""
    reader = Reader(load_index(folder))
    samples = [reader.sample(i) for i in range(len(reader.index))]
    reader.close()
    names = ("first", "second", "latents")
    arrays = {name: np.stack([np.load(io.BytesIO(sample[f"{name}.npy"])) for sample in samples]) for name in names}
    return arrays, np.array([int(sample["label.cls"]) for sample in samples])


def test_vectors_are_linear_in_their_own_latents_only() -> None:
    latents, first, second = draw_latents(2000)
    assert latents.var(axis=0) == pytest.approx(np.full(22, 0.5), abs=0.08)
    for vectors, own, other in ((first, [*range(16)], 16), (second, [*range(10), *range(16, 22)], 10)):
        solution, *_ = np.linalg.lstsq(latents[:1000], vectors[:1000], rcond=None)
        assert np.allclose(latents[1000:] @ solution, vectors[1000:], atol=1e-3)
        assert (
            solution[own].min() >= 0
            and solution[own].max() < 1
            and solution[own].mean() == pytest.approx(0.5, abs=0.03)
        )
        assert np.abs(solution[other : other + 6]).max() < 1e-4


def test_labels_take_the_leading_latents_of_each_block() -> None:
    latents = np.zeros((3, 22))
    latents[0, 0], latents[1, 10], latents[2, 16] = -1, -1, -1
    assert label_of(latents, 1, 1, 1).tolist() == [0, 0, 0]
    assert label_of(latents, 1, 0, 0).tolist() == [0, 1, 1]
    assert label_of(latents, 0, 1, 0).tolist() == [1, 0, 1]
    assert label_of(latents, 0, 0, 1).tolist() == [1, 1, 0]
    ratios = [(k1 + k2) / (ks + k1 + k2) for ks, k1, k2 in LABELS.values()]
    assert ratios[1:] == [0, 0.2, 0.4, 0.6, 0.8, 1]


def test_built_labels_are_codes_of_all(tmp_path: Path) -> None:
    build = build_latents(tmp_path / "all", samples=200)
    assert build.samples == {"train": 160, "test": 40}
    info = load_info(tmp_path / "all")
    assert list(info.factors) == list(LABELS) and info.classes is None
    _, whole, _ = draw_latents(200)
    for split in ("train", "test"):
        arrays, codes = read(tmp_path / "all" / split)
        values = decode_factors(codes, info.factors)
        assert all(np.array_equal(values[name], label_of(arrays["latents"], *sizes)) for name, sizes in LABELS.items())
        assert {row.tobytes() for row in arrays["first"]} <= {row.tobytes() for row in whole}


def test_one_label_for_supervised_runs(tmp_path: Path) -> None:
    build_latents(tmp_path / "one", "ratio4", samples=100)
    info = load_info(tmp_path / "one")
    arrays, labels = read(tmp_path / "one" / "test")
    assert info.factors == {"ratio4": 2} and len(info.classes or []) == 2
    assert np.array_equal(labels, label_of(arrays["latents"], *LABELS["ratio4"]))


def test_what_cannot_be_built_is_named(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="no label 'ratio5': there are all, ratio0"):
        build_latents(tmp_path / "x", "ratio5")
    with pytest.raises(BuildError, match="9 samples cannot be split"):
        build_latents(tmp_path / "x", samples=9)


def test_command(tmp_path: Path) -> None:
    options = ["--label", "all", "--count", "20", "--out", str(tmp_path / "x"), "--json"]
    built = CliRunner().invoke(app, ["build", "latents", *options])
    assert json.loads(built.stdout)["samples"] == {"train": 16, "test": 4}
    assert "Example: mmpretrain shards" in CliRunner().invoke(app, ["build", "latents", "--help"]).stdout
