"""MOSI, MOSEI, UR-FUNNY and MUStARD: what MultiBench's loader does, with sequences of their own length."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from mmpretrain.data.info import load_info
from mmpretrain.data.writing import BuildError
from shards.multibench.affect import AffectLabel, build_affect, normalized
from tests.shards.multibench.drawn import SIZES, STEPS, affect_arrays, array_of, members, write_pickle


def test_sequences_begin_where_the_text_does(tmp_path: Path) -> None:
    """All three modalities are cut there; what is not finite is 0; samples without a text are gone."""
    arrays = affect_arrays()
    arrays["train"]["audio"][1, 2, 0] = -np.inf
    arrays["train"]["vision"][2, 2] = 0  # vision alone may be 0
    arrays["valid"]["text"][4] = 0
    build = build_affect(write_pickle(tmp_path / "mosi_raw.pkl", arrays), tmp_path / "mosi", "mosi")
    assert build.samples == {"train": 6, "validation": 5, "test": 6}
    found = members(tmp_path / "mosi" / "train")
    for row in range(6):
        for modality in SIZES:
            expected = arrays["train"][modality][row, row % 4 :].astype(np.float32)
            expected = np.where(np.isfinite(expected), expected, 0)
            np.testing.assert_array_equal(array_of(found[f"train-{row:06d}"][f"{modality}.npy"]), expected)
    info = load_info(tmp_path / "mosi")
    assert info.modalities["text"] == {"kind": "sequence", "size": [STEPS, 4]}
    assert info.provenance["left out, without a text"] == {"valid": 1}
    assert info.provenance["not finite, written as 0"] == {"audio": 1}
    assert "valid-000004" not in members(tmp_path / "mosi" / "validation")


@pytest.mark.parametrize(
    ("label", "expected"),
    [
        (AffectLabel.positive, ["0", "0", "0", "1", "1", "1"]),
        (AffectLabel.nonnegative, ["0", "0", "1", "1", "1", "1"]),
        (AffectLabel.seven, ["1", "2", "3", "4", "5", "6"]),
        (AffectLabel.value, ["-2.0", "-1.0", "0.0", "1.0", "2.0", "3.0"]),
    ],
)
def test_labels_of_every_form(tmp_path: Path, label: AffectLabel, expected: list[str]) -> None:
    source = write_pickle(tmp_path / "mosi_raw.pkl", affect_arrays())
    build_affect(source, tmp_path / "mosi", "mosi", label)
    found = [sample["label.cls"].decode() for sample in members(tmp_path / "mosi" / "test").values()]
    assert found == expected
    classes = load_info(tmp_path / "mosi").classes
    assert len(classes or []) == {"positive": 2, "nonnegative": 2, "seven": 7, "value": 0}[label.value]


def test_normalization_is_that_of_the_loader(tmp_path: Path) -> None:
    arrays = affect_arrays()
    arrays["train"]["vision"][:, :, 1] = 0.3  # never varies: 0, and not a huge number of rounding
    build_affect(write_pickle(tmp_path / "a.pkl", arrays), tmp_path / "mosi", "mosi", z_norm=True)
    found = array_of(members(tmp_path / "mosi" / "train")["train-000001"]["vision.npy"])
    values = torch.from_numpy(arrays["train"]["vision"][1, 1:].astype(np.float32))
    expected = torch.nan_to_num((values - values.mean(0)) / values.std(0))
    expected[:, 1] = 0
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-4, atol=1e-5)
    assert not normalized(np.ones((1, 3), np.float32)).any()


def test_a_file_of_another_layout_is_refused_by_name(tmp_path: Path) -> None:
    arrays = affect_arrays()
    arrays["test"]["audio"] = arrays["test"]["audio"][:, :-1]
    with pytest.raises(BuildError, match=r"\['test'\]\['audio'\] has shape \[6, 5, 2\]"):
        build_affect(write_pickle(tmp_path / "a.pkl", arrays), tmp_path / "out", "mosi")
    del arrays["valid"]
    with pytest.raises(BuildError, match=r"has no \['valid'\]\['vision'\]: there is train, test"):
        build_affect(write_pickle(tmp_path / "a.pkl", arrays), tmp_path / "out", "mosi")
    assert not (tmp_path / "out").exists()
