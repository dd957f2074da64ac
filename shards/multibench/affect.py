"""MultiBench's files of people who speak: MOSI, MOSEI, UR-FUNNY ("humor") and MUStARD ("sarcasm").

A file has the splits ``train``, ``valid`` and ``test``, each with ``vision``, ``audio`` and ``text`` [n, T, features],
aligned step by step and padded with zeros in front, and ``labels`` [n, ...], of which the first number counts. As
MultiBench's loader does: samples whose text is zero are left out, what is not finite becomes 0, and all three
modalities begin at the first step of the text that is not zero. What follows is the sequence, of its own length.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np

from mmpretrain.data.info import DatasetInfo
from mmpretrain.data.writing import Build, BuildError, Overwrite, RawSample, build_dataset, npy, refuse_overwrite
from shards.multibench.pickled import array_at, read_pickle

MODALITIES = ("vision", "audio", "text")
SPLITS = {"train": "train", "valid": "validation", "test": "test"}
TITLES = {
    "mosi": "CMU-MOSI: sentiment of opinions that people speak into a camera",
    "mosei": "CMU-MOSEI: sentiment of opinions that people speak into a camera",
    "urfunny": "UR-FUNNY: whether the end of a talk's passage is funny",
    "mustard": "MUStARD: sarcasm in dialogues of television series",
}


class AffectLabel(StrEnum):
    """What becomes of the number that a sample is labeled with."""

    positive = "positive"
    """Class 1 above 0, else class 0 (MultiBench's loader and CoMM)."""

    nonnegative = "nonnegative"
    """Class 1 from 0 on, else class 0 (FactorCL, of MOSI and MOSEI)."""

    seven = "seven"
    """The nearest whole number from -3 to 3, as one of seven classes."""

    value = "value"
    """The number itself."""


CLASSES: dict[AffectLabel, list[str] | None] = {
    AffectLabel.positive: ["not above 0", "above 0"],
    AffectLabel.nonnegative: ["below 0", "0 or above"],
    AffectLabel.seven: [str(level) for level in range(-3, 4)],
    AffectLabel.value: None,
}
_WRITTEN: dict[AffectLabel, Callable[[float], str]] = {
    AffectLabel.positive: lambda y: str(int(y > 0)),
    AffectLabel.nonnegative: lambda y: str(int(y >= 0)),
    AffectLabel.seven: lambda y: str(int(np.clip(np.round(y), -3, 3)) + 3),
    AffectLabel.value: lambda y: repr(float(y)),
}


@dataclass
class _Counts:
    """What was changed on the way: split -> samples without a text; modality -> values that were not finite."""

    without_text: dict[str, int] = field(default_factory=dict)
    not_finite: dict[str, int] = field(default_factory=dict)


def build_affect(
    source: Path,
    out: Path,
    name: str,
    label: AffectLabel = AffectLabel.positive,
    z_norm: bool = False,
    overwrite: Overwrite = Overwrite.same_dataset,
) -> Build:
    """Shards of one of these files, splits ``train``, ``validation`` and ``test``. name: one of ``TITLES``.

    z_norm: every feature minus its mean over the sample's own steps, divided by its deviation there (0 where there is
    none), an option of MultiBench's loader that neither it nor the papers' code sets.

    Raises:
        BuildError: the file is not of this layout, or ``out`` holds something that may not be replaced.
    """
    refuse_overwrite(out.resolve(), name, overwrite)
    content = read_pickle(source)
    arrays = {split: _split(source, content, split) for split in SPLITS}
    sizes = {m: list(arrays["train"][m].shape[1:]) for m in MODALITIES}
    for split, found in arrays.items():
        other = [m for m in MODALITIES if found[m].shape[2] != sizes[m][1]]
        if other:
            raise BuildError(f"{source}: {other[0]} has {sizes[other[0]][1]} features in train, and others in {split}")
    longest = max(found["text"].shape[1] for found in arrays.values())
    counts = _Counts()
    splits = {SPLITS[split]: _samples(split, found, label, z_norm, counts) for split, found in arrays.items()}
    # The counts grow while samples are written, and dataset.json is written after them.
    provenance: dict[str, Any] = {"left out, without a text": counts.without_text, "z_norm": z_norm}
    provenance |= {"not finite, written as 0": counts.not_finite, "label": label.value}
    info = DatasetInfo(
        name=name,
        title=TITLES[name],
        source="the file of MultiBench (arXiv 2107.07502)",
        license="terms of the source; do not redistribute",
        modalities={m: {"kind": "sequence", "size": [longest, sizes[m][1]]} for m in MODALITIES},
        classes=CLASSES[label],
        provenance=provenance,
    )
    return build_dataset(out, info, splits, overwrite=overwrite)


def _split(source: Path, content: Any, split: str) -> dict[str, np.ndarray]:
    """vision, audio, text: [n, T, features]; labels: float64 [n]. Raises BuildError."""
    found = {m: array_at(source, content, split, m) for m in MODALITIES}
    labels = array_at(source, content, split, "labels")
    text = found["text"]
    for modality, values in found.items():
        if values.ndim != 3 or values.shape[:2] != text.shape[:2] or values.dtype.kind not in "biuf":
            raise BuildError(
                f"{source}[{split!r}][{modality!r}] has shape {list(values.shape)}: numbers [samples, steps, features]"
                f" are needed, of the samples and steps of the text, {list(text.shape[:2])}"
            )
    if len(labels) != len(text) or not labels.size or labels.dtype.kind not in "biuf":
        raise BuildError(f"{source}[{split!r}]['labels'] has shape {list(labels.shape)} for {len(text)} samples")
    firsts = labels.reshape(len(labels), -1)[:, 0].astype(np.float64)
    if not np.isfinite(firsts).all():
        raise BuildError(f"{source}[{split!r}]['labels']: label {int(np.argmin(np.isfinite(firsts)))} is not finite")
    return {**found, "labels": firsts}


def _samples(
    split: str, arrays: dict[str, np.ndarray], label: AffectLabel, z_norm: bool, counts: _Counts
) -> Iterator[RawSample]:
    for row, value in enumerate(arrays["labels"].tolist()):
        spoken = np.flatnonzero(arrays["text"][row].any(axis=1))
        if not len(spoken):
            counts.without_text[split] = counts.without_text.get(split, 0) + 1
            continue
        members: dict[str, bytes | str] = {}
        for modality in MODALITIES:
            steps = arrays[modality][row, spoken[0] :].astype(np.float32)
            lost = int((~np.isfinite(steps)).sum())
            if lost:
                counts.not_finite[modality] = counts.not_finite.get(modality, 0) + lost
            steps = np.where(np.isfinite(steps), steps, np.float32(0))
            members[f"{modality}.npy"] = npy(normalized(steps) if z_norm else steps)
        written = _WRITTEN[label](value).encode()
        yield {"__key__": f"{split}-{row:06d}", **members, "label.cls": written}


def normalized(steps: np.ndarray) -> np.ndarray:
    """[T, features] with mean 0 and deviation 1 (over T - 1) of every feature; 0 where it does not vary."""
    if len(steps) < 2:
        return np.zeros_like(steps)
    deviation = steps.std(axis=0, ddof=1, keepdims=True)
    constant = (steps == steps[:1]).all(axis=0, keepdims=True) | (deviation == 0)
    found = (steps - steps.mean(axis=0, keepdims=True)) / np.where(constant, 1, deviation)
    return np.where(constant, 0, found).astype(np.float32)
