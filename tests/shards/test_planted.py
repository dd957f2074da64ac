"""Planted pairs: what is shared is on the left, what is private on the right, and scans of the splits differ."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits
from typer.testing import CliRunner

from mmpretrain.data.factor_codes import decode_factors
from mmpretrain.data.index import load_index
from mmpretrain.data.info import load_info
from mmpretrain.data.reader import Reader
from mmpretrain.data.writing import BuildError
from shards.cli import app
from shards.planted import FACTORS, Right, build_planted, draw_pairs


def read(folder: Path) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Images uint8 [n, 2, 8, 16] and the classes of one split."""
    reader = Reader(load_index(folder))
    samples = [reader.sample(i) for i in range(len(reader.index))]
    reader.close()
    images = [[np.asarray(Image.open(io.BytesIO(s[f"{name}.png"]))) for name in ("first", "second")] for s in samples]
    codes = np.array([int(sample["label.cls"]) for sample in samples])
    return np.array(images), decode_factors(codes, FACTORS)


@pytest.mark.parametrize("right", list(Right))
def test_classes_are_where_they_should_be(right: Right) -> None:
    targets = load_digits().target
    rows, classes = draw_pairs(targets, right, 2000, 0)
    assert (targets[rows[:, :, 0]] == classes["shared"][:, None]).all()
    assert np.array_equal(targets[rows[:, 0, 1]], classes["private_first"])
    assert np.array_equal(targets[rows[:, 1, 1]], classes["private_second"])
    equal = targets[rows[:, 0]] == targets[rows[:, 1]]
    assert (rows[:, 0] != rows[:, 1])[equal].all()
    share = (classes["private_first"] == classes["private_second"]).mean()
    assert share == 1 if right is Right.shared else share == pytest.approx(0.1, abs=0.03)
    assert len(np.unique(rows)) > 1500


def test_built_images_are_scans_and_splits_have_different_ones(tmp_path: Path) -> None:
    build = build_planted(tmp_path / "x", train=300, test=60)
    assert build.samples == {"train": 300, "test": 60} and load_info(tmp_path / "x").factors == FACTORS
    scans = load_digits()
    by_bytes = {
        np.round(s * 255 / 16).astype(np.uint8).tobytes(): t for s, t in zip(scans.images, scans.target, strict=True)
    }
    seen = []
    for split in ("train", "test"):
        images, classes = read(tmp_path / "x" / split)
        halves = np.stack([images[..., :8], images[..., 8:]], axis=2)  # [n, image, half, 8, 8]
        found = [[[by_bytes[half.tobytes()] for half in image] for image in pair] for pair in halves]
        assert np.array_equal(np.array(found)[:, 0, 0], classes["shared"])
        assert np.array_equal(np.array(found)[:, 1, 1], classes["private_second"])
        seen.append({half.tobytes() for pair in halves for image in pair for half in image})
    assert not seen[0] & seen[1]


def test_command_and_errors(tmp_path: Path) -> None:
    options = ["--right", "shared", "--count", "20", "--test-count", "4", "--out", str(tmp_path / "x"), "--json"]
    built = json.loads(CliRunner().invoke(app, ["build", "planted", *options]).stdout)
    assert built["samples"] == {"train": 20, "test": 4} and built["name"] == "planted-pretrain"
    with pytest.raises(BuildError, match="0 training and 4 test pairs: every split needs at least one"):
        build_planted(tmp_path / "y", train=0, test=4)
    wrong = CliRunner().invoke(app, ["build", "planted", "--right", "left", "--json"])
    assert "there are private and shared right halves" in wrong.stdout
