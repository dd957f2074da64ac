"""The linear world: its samples follow the covariance that it states, and its shards hold them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from mmpretrain.config.compose import compose
from mmpretrain.config.kind import Kind
from mmpretrain.data.index import load_index
from mmpretrain.data.reader import Reader, read_sample
from shards.cli import app
from shards.linear import NAMES, NOISE, PRIVATE, SAMPLES, WIDTHS, build_linear, draw, mixing, population


def test_samples_follow_the_stated_covariance() -> None:
    rows = np.hstack(draw(100_000, seed=1))
    np.testing.assert_allclose(np.cov(rows.T), population(), atol=0.3)
    assert abs(rows.mean(0)).max() < 0.05


def test_noise_alone_fills_what_the_latents_leave() -> None:
    first = np.linalg.eigvalsh(population()[: WIDTHS[0], : WIDTHS[0]])
    assert first[: WIDTHS[0] - 2 - PRIVATE[0]] == pytest.approx(NOISE**2)
    assert [m.shape for m in mixing()] == [(5, 8), (4, 6)]


def test_splits_differ_and_draws_repeat() -> None:
    again, other = draw(3, seed=0), draw(3, seed=1)
    assert all(np.array_equal(a, b) for a, b in zip(draw(3, seed=0), again, strict=True))
    assert not np.array_equal(again[0], other[0])


def test_shards_hold_what_was_drawn(tmp_path: Path) -> None:
    build = build_linear(tmp_path / "linear", {"train": 20, "test": 5})
    assert build.samples == {"train": 20, "test": 5}
    reader = Reader(load_index(tmp_path / "linear" / "test"))
    sample = read_sample(reader, dict.fromkeys(NAMES, Kind.vector), 4)
    reader.close()
    for name, side in zip(NAMES, draw(5, seed=1), strict=True):
        np.testing.assert_array_equal(np.asarray(sample[name]), side[4].astype(np.float32))


def test_the_experiment_fits_the_world() -> None:
    config = compose(["experiment=linear"])
    assert not config.problems()
    assert [config.data.modalities[name].size for name in NAMES] == [[width] for width in WIDTHS]
    assert config.train.samples > SAMPLES["train"]


def test_command(tmp_path: Path) -> None:
    options = ["--count", "20", "--test-count", "4", "--out", str(tmp_path / "x"), "--json"]
    built = json.loads(CliRunner().invoke(app, ["build", "linear", *options]).stdout)
    assert built["samples"] == {"train": 20, "test": 4} and built["name"] == "linear"
