"""Vision & Touch (Lee et al. 2019) as MultiBench reads it: a robot's trajectories, one HDF5 file each (or .npz).

A file has ``image`` [T, 128, 128, 3], ``ee_forces_continuous`` [T, readings, 6], ``proprio`` [T, 8 or more] and
``contact`` [T, ...]. Sample t has the picture, the last 32 readings of forces through a tanh, and the first 8 numbers
of the arm at t, and two labels of the step after it: whether there is contact, and the first 4 numbers of the arm.

MultiBench draws the last sample of a file from the others, and CoMM's code tests on the trajectories that it validates
on; here every step but the last is one sample, and whole trajectories go to one side.
"""

from __future__ import annotations

import io
import json
import random
import re
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mmpretrain.data.decode import SampleError
from mmpretrain.data.info import DatasetInfo
from mmpretrain.data.kinds import array
from mmpretrain.data.writing import Build, BuildError, Overwrite, RawSample, build_dataset, npy, refuse_overwrite

WINDOW, ARM, POSE = 32, 8, 4
FIELDS = ("image", "ee_forces_continuous", "proprio", "contact")
SHARES = {"test": 0.2, "validation": 0.1}
PIECE = re.compile(r"_\d{1,2}_1000$")
MOST_BYTES = 1 << 30  # of one field of one trajectory


@dataclass(frozen=True)
class _Trajectory:
    """Of T steps: image uint8 [T, height, width, 3], force [T, readings, 6], arm [T, 8 or more], contact [T, ...]."""

    image: np.ndarray
    force: np.ndarray
    arm: np.ndarray
    contact: np.ndarray


def build_vision_touch(
    source: Path, out: Path, name: str = "vision_touch", overwrite: Overwrite = Overwrite.same_dataset
) -> Build:
    """Shards with ``image``, ``force`` [32, 6] and ``proprio`` [8]; labels ``label.cls`` (contact) and ``pose.json``
    (4 numbers, read by ``data.label.member=[pose.json]``).

    Raises:
        BuildError: a file is not of this layout, or ``out`` holds something that may not be replaced.
    """
    refuse_overwrite(out.resolve(), name, overwrite)
    paths = sorted(path for path in source.iterdir() if path.suffix.lower() in (".h5", ".hdf5", ".npz"))
    if not all(split_paths(paths).values()):
        raise BuildError(
            f"{source} has {len(paths)} files (.h5, .npz) of fewer than the 3 trajectories of three splits"
        )
    first = _read(paths[0])
    info = DatasetInfo(
        name=name,
        title="Vision & Touch: a robot arm that fits pegs, seen and felt",
        source="the trajectories of Lee et al., Making Sense of Vision and Touch (arXiv 1810.10191)",
        license="terms of the source",
        modalities={
            "image": {"kind": "image", "size": list(first.image.shape[1:3]), "channels": 3},
            "force": {"kind": "sequence", "size": [WINDOW, 6]},
            "proprio": {"kind": "vector", "size": [ARM]},
        },
        classes=["no contact", "contact"],
        provenance={"files": {split: len(part) for split, part in split_paths(paths).items()}},
    )
    splits = {split: _samples(part, first.image.shape[1:]) for split, part in split_paths(paths).items()}
    return build_dataset(out, info, splits, overwrite=overwrite)


def split_paths(paths: list[Path]) -> dict[str, list[Path]]:
    """Split -> files of whole trajectories, a fixed draw: a fifth to the test, a tenth to validation, at least one.

    The published files are pieces of 50 steps, ``NAME_0_1000.h5`` to ``NAME_19_1000.h5``, which stay together.
    """
    pieces: dict[str, list[Path]] = {}
    for path in sorted(paths):
        pieces.setdefault(PIECE.sub("", path.stem), []).append(path)
    order = sorted(pieces)
    random.Random(0).shuffle(order)
    test = max(1, round(SHARES["test"] * len(order)))
    end = test + max(1, round(SHARES["validation"] * len(order)))
    parts = {"train": order[end:], "validation": order[test:end], "test": order[:test]}
    return {split: [path for name in sorted(names) for path in pieces[name]] for split, names in parts.items()}


def _samples(paths: list[Path], shape: tuple[int, ...]) -> Iterator[RawSample]:
    for path in paths:
        found = _read(path)
        if found.image.shape[1:] != shape:
            raise BuildError(f"{path}: images have shape {list(found.image.shape[1:])}, those of others {list(shape)}")
        for step in range(len(found.image) - 1):
            yield _sample(f"{path.stem.replace('.', '_')}-{step:03d}", found, step)


def _sample(key: str, found: _Trajectory, step: int) -> RawSample:
    force = np.tanh(found.force[step, -WINDOW:].astype(np.float32))
    pose = found.arm[step + 1, :POSE].astype(np.float32).astype(np.float64).tolist()
    return {
        "__key__": key,
        "image.png": _png(found.image[step]),
        "force.npy": npy(force),
        "proprio.npy": npy(found.arm[step, :ARM].astype(np.float32)),
        "label.cls": str(int(found.contact[step + 1].sum() > 0)).encode(),
        "pose.json": json.dumps(pose).encode(),
    }


def _png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def _read(path: Path) -> _Trajectory:
    """Raises BuildError."""
    fields = _of_npz(path) if path.suffix.lower() == ".npz" else _of_hdf5(path)
    image, force, arm, contact = (fields[name] for name in FIELDS)
    if image.ndim == 4 and image.shape[1] == 3:  # MultiBench's way from [3, width, height]
        image = image.transpose(0, 3, 2, 1)
    shapes = {name: list(values.shape) for name, values in fields.items()}
    fits = image.ndim == 4 and image.size > 0 and image.shape[3] == 3 and force.ndim == 3 and force.shape[2] == 6
    fits = fits and force.shape[1] >= WINDOW and arm.ndim == 2 and arm.shape[1] >= ARM
    if not fits or len({len(values) for values in fields.values()}) > 1 or len(image) < 2:
        needed = (
            f"image [T, h, w, 3], ee_forces_continuous [T, {WINDOW} or more, 6], proprio [T, {ARM} or more], contact"
        )
        raise BuildError(f"{path}: {shapes} cannot be used: {needed} are needed, of the same T")
    for name, values in fields.items():
        if not np.isfinite(values).all():
            raise BuildError(f"{path}: {name} has values that are not finite")
    return _Trajectory(np.ascontiguousarray(_pixels(path, image)), force, arm, contact)


def _pixels(path: Path, image: np.ndarray) -> np.ndarray:
    if image.dtype == np.uint8:
        return image
    found = np.empty(image.shape, np.uint8)
    for step, stored in enumerate(image):  # one by one: as float32 all of them may take four times the memory
        with np.errstate(over="ignore"):
            values = stored.astype(np.float32)
        if values.min() < 0 or values.max() > 255 or (values != np.round(values)).any():
            raise BuildError(
                f"{path}: image {step} has values from {values.min()} to {values.max()}, whole ones from 0 to 255 are"
                " needed"
            )
        found[step] = values
    return found


def _of_npz(path: Path) -> dict[str, np.ndarray]:
    try:
        with zipfile.ZipFile(path) as file:
            return {name: _of_zip(path, file, name) for name in FIELDS}
    except BuildError:
        raise
    except Exception as error:  # a damaged or encrypted archive fails in any way
        raise BuildError(f"{path} cannot be read ({type(error).__name__}: {error})") from None


def _of_zip(path: Path, file: zipfile.ZipFile, name: str) -> np.ndarray:
    member = f"{name}.npy"
    if member not in file.namelist():
        raise BuildError(f"{path} has no {member}: it has {', '.join(file.namelist()[:20])}")
    size = file.getinfo(member).file_size
    if size > MOST_BYTES:
        raise BuildError(f"{path}: {member} has {size} bytes, more than {MOST_BYTES}")
    with file.open(member) as stream:
        data = stream.read(size)
    try:
        # The pictures are by far the largest, and mostly bytes.
        return array.stored(data) if name == "image" else array.decode(data)
    except (SampleError, ValueError) as error:
        raise BuildError(f"{path}: {member}: {error}") from None


def _of_hdf5(path: Path) -> dict[str, np.ndarray]:
    try:
        import h5py
    except ImportError:
        raise BuildError(f"{path} is HDF5: pip install h5py, or write its fields to .npz files (numpy.savez)") from None
    try:
        with h5py.File(path, "r") as file:
            return {name: _of_group(path, file, name, h5py) for name in FIELDS}
    except (OSError, RuntimeError) as error:
        raise BuildError(f"{path} cannot be read as HDF5 ({error})") from None


def _of_group(path: Path, file: Any, name: str, h5py: Any) -> np.ndarray:
    """A field that lies in the file itself: links and outside storage would read other files."""
    found = file.get(name) if isinstance(file.get(name, getlink=True), h5py.HardLink) else None
    if not isinstance(found, h5py.Dataset) or found.external or found.is_virtual:
        raise BuildError(f"{path} has no field {name} of its own: it has {', '.join(list(file)[:20])}")
    if found.size * found.dtype.itemsize > MOST_BYTES or found.dtype.kind not in "biuf":
        raise BuildError(f"{path}: {name} has {found.size} values of {found.dtype}: too many, or no numbers")
    return np.asarray(found[()])
