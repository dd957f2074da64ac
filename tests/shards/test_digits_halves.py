"""The digits cut in two: no scan is in both halves, and each dataset has its modalities alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mmpretrain.data.index import load_index
from shards.digits import split_rows
from shards.digits_halves import build_digits_halves


def test_both_halves_share_no_scan_and_make_up_the_training_split_together(tmp_path: Path) -> None:
    build_digits_halves(tmp_path)
    keys = {n: set(load_index(tmp_path / n / "train").all_keys()) for n in ("left", "right", "captions", "pairs")}
    assert not keys["left"] & keys["right"]
    assert keys["left"] | keys["right"] == keys["captions"] == keys["pairs"]
    members = {name: load_index(tmp_path / name / "train").extensions for name in keys}
    assert members == {
        "left": ["caption.txt", "label.cls", "left.png"],
        "right": ["caption.txt", "label.cls", "right.png"],
        "captions": ["caption.txt", "label.cls"],
        "pairs": ["label.cls", "left.png", "right.png"],
    }
    assert len(load_index(tmp_path / "left" / "test")) == len(split_rows()["test"])


def test_another_seed_cuts_elsewhere_and_the_same_one_writes_nothing_new(tmp_path: Path) -> None:
    first = build_digits_halves(tmp_path / "a")
    assert build_digits_halves(tmp_path / "a")["left"].outcome == "unchanged"
    other = build_digits_halves(tmp_path / "b", seed=1)
    assert first["left"].fingerprints["train"] != other["left"].fingerprints["train"]
    assert first["left"].fingerprints["test"] == other["left"].fingerprints["test"]
    assert np.isclose(len(load_index(tmp_path / "b" / "left" / "train")), 718, atol=5)
