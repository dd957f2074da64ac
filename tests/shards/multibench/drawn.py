"""Small files of MultiBench's layouts, drawn for tests."""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np

from mmpretrain.data.index import load_index

SIZES = {"vision": 3, "audio": 2, "text": 4}
STEPS = 6


def affect_arrays(count: int = 6, sizes: dict[str, int] = SIZES, steps: int = STEPS) -> dict[str, dict[str, Any]]:
    """Three splits; sample i has i % 4 steps of zeros in front, and a label of i - 2."""
    generator = np.random.default_rng(0)
    found: dict[str, dict[str, Any]] = {}
    for split in ("train", "valid", "test"):
        arrays: dict[str, Any] = {m: generator.normal(1, 1, (count, steps, size)) for m, size in sizes.items()}
        for row in range(count):
            for values in arrays.values():
                values[row, : row % 4] = 0
        arrays["labels"] = (np.arange(count) - 2.0)[:, None, None]
        arrays["id"] = np.array([[f"video{row}", 0.0] for row in range(count)], dtype=object)
        found[split] = arrays
    return found


def write_pickle(path: Path, content: Any, protocol: int = 4) -> Path:
    """A pickle as others write them."""
    path.write_bytes(pickle.dumps(content, protocol=protocol))
    return path


def mimic_arrays(count: int = 40) -> dict[str, Any]:
    """``im.pk`` with a value that is not finite, and a reading that never varies."""
    generator = np.random.default_rng(0)
    series = generator.normal(3, 2, (count, 24, 12))
    series[0, 0, 0], series[:, :, 11] = np.inf, 5
    facts = generator.normal(50, 20, (count, 5))
    facts[1, 1] = np.nan
    mortality = np.zeros((count, 6))
    mortality[3, 2] = 1
    codes = (np.arange(count)[:, None] % 3 == np.arange(20) % 3).astype(float)
    return {"ep_tdata": series, "adm_features_all": facts, "adm_labels_all": mortality, "y_icd9": codes}


def trajectory(seed: int, steps: int = 5, side: int = 16) -> dict[str, Any]:
    """The fields of one trajectory that are read."""
    generator = np.random.default_rng(seed)
    return {
        "image": generator.integers(0, 256, (steps, side, side, 3), dtype=np.uint8),
        "ee_forces_continuous": generator.normal(0, 2, (steps, 50, 6)),
        "proprio": generator.normal(0, 1, (steps, 10)),
        "contact": (np.arange(steps) >= 3)[:, None].astype(np.int64),
    }


def write_trajectories(folder: Path, count: int = 10, side: int = 16) -> Path:
    """A folder of .npz files."""
    folder.mkdir()
    for seed in range(count):
        np.savez(folder / f"run{seed}.npz", **trajectory(seed, side=side))
    return folder


def members(folder: Path) -> dict[str, dict[str, bytes]]:
    """Key -> member -> bytes of a split."""
    index = load_index(folder)
    found: dict[str, dict[str, bytes]] = {}
    for ordinal in range(len(index)):
        sample = index.sample(ordinal)
        content = Path(index.path(sample.shard)).read_bytes()
        found[index.key(ordinal)] = {
            name: content[offset : offset + size] for name, (offset, size) in sample.members.items()
        }
    return found


def array_of(data: bytes) -> np.ndarray:
    """The array of a .npy member."""
    return np.load(io.BytesIO(data), allow_pickle=False)
