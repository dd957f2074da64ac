"""The synthetic world: what its modalities have in common, and that no samples occur twice."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from mmpretrain.data.index import load_index
from mmpretrain.data.info import load_info
from mmpretrain.data.reader import Reader
from mmpretrain.data.writing import BuildError
from shards.cli import app
from shards.world import DATASETS, ThreeModalityWorld, build_world


def read(folder: Path, modality: str) -> np.ndarray:
    """All vectors of a modality, [n, 32]."""
    reader = Reader(load_index(folder))
    rows = [np.load(io.BytesIO(reader.sample(i)[f"{modality}.npy"])) for i in range(len(reader.index))]
    reader.close()
    return np.stack(rows)


def test_modalities_of_a_sample_tell_of_one_another() -> None:
    """A linear map from one modality to another explains much of it; between samples it explains nothing."""
    rows = ThreeModalityWorld.of(0).draw("ab", 4000)
    solution, *_ = np.linalg.lstsq(rows["a"][:2000], rows["b"][:2000], rcond=None)
    guess, truth = rows["a"][2000:] @ solution, rows["b"][2000:]
    share = 1 - (guess - truth).var(axis=0).sum() / truth.var(axis=0).sum()
    assert 0.3 < share < 0.9
    assert (guess[1:] - truth[:-1]).var(axis=0).sum() > truth.var(axis=0).sum()


def test_worlds_and_datasets_differ_and_are_the_same_again() -> None:
    first, other = ThreeModalityWorld.of(0), ThreeModalityWorld.of(1)
    assert np.array_equal(first.draw("corpus", 5)["b"], ThreeModalityWorld.of(0).draw("corpus", 5)["b"])
    assert not np.allclose(first.draw("corpus", 5)["b"], other.draw("corpus", 5)["b"])
    assert not np.allclose(first.draw("corpus", 5)["b"], first.draw("ab", 5)["b"])


def test_datasets_hold_their_modalities_and_no_sample_twice(tmp_path: Path) -> None:
    builds = build_world(tmp_path, samples=20, test_samples=6)
    assert builds.keys() == DATASETS.keys()
    assert builds["ab"].samples == {"train": 20, "test": 6} and builds["memory_a"].samples == {"train": 20}
    assert builds["triples"].samples == {"test": 6}
    for name, modalities in DATASETS.items():
        assert list(load_info(tmp_path / name).modalities) == list(modalities)
    assert np.array_equal(read(tmp_path / "ab" / "test", "b"), read(tmp_path / "bc" / "test", "b"))
    seen = [read(tmp_path / name / "train", "b") for name in ("ab", "bc", "corpus")]
    assert len({row.tobytes() for rows in seen for row in rows}) == 60


def test_what_cannot_be_built_is_named(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="0 samples and 5 triples"):
        build_world(tmp_path, samples=0, test_samples=5)
    build_world(tmp_path, samples=2, test_samples=2)
    with pytest.raises(BuildError, match="holds the dataset 'world0-ab'"):
        build_world(tmp_path, seed=1, samples=2, test_samples=2)


def test_command(tmp_path: Path) -> None:
    arguments = ["build", "world", "--out", str(tmp_path / "w"), "--count", "3", "--test-count", "2"]
    done = CliRunner().invoke(app, [*arguments, "--json"])
    assert json.loads(done.stdout)["samples"]["bc"] == {"train": 3, "test": 2}
    assert "unchanged" in CliRunner().invoke(app, arguments).stdout
