"""Vision & Touch: what a step becomes, and that whole trajectories go to one side."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmpretrain.data.writing import BuildError
from shards.multibench.vision_touch import build_vision_touch, split_paths
from tests.shards.multibench.drawn import array_of, members, trajectory, write_trajectories


def test_a_step_becomes_a_sample(tmp_path: Path) -> None:
    build = build_vision_touch(write_trajectories(tmp_path / "runs"), tmp_path / "out")
    assert build.samples == {"train": 28, "validation": 4, "test": 8}
    found = {k: v for part in build.samples for k, v in members(tmp_path / "out" / part).items()}
    fields, sample = trajectory(3), found["run3-002"]
    np.testing.assert_array_equal(np.array(Image.open(io.BytesIO(sample["image.png"]))), fields["image"][2])
    expected = np.tanh(fields["ee_forces_continuous"][2, -32:])
    np.testing.assert_allclose(array_of(sample["force.npy"]), expected, rtol=1e-5)
    np.testing.assert_array_equal(array_of(sample["proprio.npy"]), fields["proprio"][2, :8].astype(np.float32))
    assert json.loads(sample["pose.json"]) == fields["proprio"][3, :4].astype(np.float32).tolist()
    assert [found[f"run3-{step:03d}"]["label.cls"] for step in range(4)] == [b"0", b"0", b"1", b"1"]


def test_pieces_of_a_trajectory_stay_together() -> None:
    paths = [Path(f"peg{run}_{piece}_1000.h5") for run in range(10) for piece in range(20)]
    parts = {split: {path.name.partition("_")[0] for path in part} for split, part in split_paths(paths).items()}
    assert [len(part) for part in parts.values()] == [7, 1, 2] and len(set.union(*parts.values())) == 10


@pytest.mark.processes  # h5py looks for its library by one
def test_hdf5_gives_the_same_samples(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py", reason="h5py reads HDF5")
    folder = write_trajectories(tmp_path / "npz", 3)
    (tmp_path / "h5").mkdir()
    for seed in range(3):
        with h5py.File(tmp_path / "h5" / f"run{seed}.h5", "w") as file:
            for name, values in trajectory(seed).items():
                file[name] = values
    first, second = build_vision_touch(folder, tmp_path / "a"), build_vision_touch(tmp_path / "h5", tmp_path / "b")
    assert first.fingerprints == second.fingerprints
    with h5py.File(tmp_path / "h5" / "run0.h5", "a") as file:
        del file["contact"]
        file["contact"] = h5py.ExternalLink(str(tmp_path / "h5" / "run1.h5"), "contact")
    with pytest.raises(BuildError, match="has no field contact of its own"):
        build_vision_touch(tmp_path / "h5", tmp_path / "c")


def test_files_of_another_layout_are_refused_by_name(tmp_path: Path) -> None:
    folder = write_trajectories(tmp_path / "runs", 3)
    np.savez(folder / "run1.npz", **(trajectory(1) | {"proprio": np.zeros((5, 7))}))
    with pytest.raises(BuildError, match=r"run1.npz: .*'proprio': \[5, 7\].* cannot be used"):
        build_vision_touch(folder, tmp_path / "out")
    (folder / "run1.npz").unlink()
    with pytest.raises(BuildError, match="fewer than the 3 trajectories"):
        build_vision_touch(folder, tmp_path / "out")


def test_an_archive_that_cannot_be_opened_is_refused_by_name(tmp_path: Path) -> None:
    folder = write_trajectories(tmp_path / "runs", 3)
    whole = (folder / "run1.npz").read_bytes()
    directory, start = whole.index(b"PK\1\2"), whole.index(b"\x93NUMPY")
    for place, value, error in ((8, 1, "RuntimeError"), (10, 99, "NotImplementedError"), (10, 8, "error")):
        damaged = bytearray(whole)
        damaged[directory + place] = value  # encrypted, of an unknown compression, compressed
        damaged[start] = 7  # no block of compressed bytes begins so
        (folder / "run1.npz").write_bytes(damaged)
        with pytest.raises(BuildError, match=rf"run1.npz cannot be read \({error}: "):
            build_vision_touch(folder, tmp_path / "out")


def test_pictures_of_any_type_become_the_same_bytes_if_they_are_whole(tmp_path: Path) -> None:
    folder = write_trajectories(tmp_path / "runs", 3)
    first = build_vision_touch(folder, tmp_path / "a")
    for seed, kind in enumerate((np.int64, np.float16, np.float64)):
        fields = trajectory(seed)
        pictures = fields["image"].astype(kind)
        if kind is np.float64:
            pictures = pictures / 255 * 255  # whole but for float64's last digits
        np.savez(folder / f"run{seed}.npz", **(fields | {"image": pictures}))
    assert build_vision_touch(folder, tmp_path / "b").fingerprints == first.fingerprints
    np.savez(folder / "run1.npz", **(trajectory(1) | {"image": trajectory(1)["image"] + 0.5}))
    with pytest.raises(BuildError, match=r"run1.npz: image 0 has values from .* whole ones from 0 to 255"):
        build_vision_touch(folder, tmp_path / "c")
