"""Config of the augmentations (no torch here)."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import StrEnum

from mmpretrain.config.kind import KINDS, Kind

MOST_DECIBELS = 60
_KNOWN = tuple(dict.fromkeys(name for row in KINDS.values() for name in row.operations))


class Choose(StrEnum):
    """Which of the operations that are set a sample gets."""

    each = "each"
    """Every operation is drawn by its own probability, independently of the others."""

    one = "one"
    """Exactly one of the operations, or none, all equally likely."""


@dataclass
class AugmentConfig:
    """How one modality is augmented.

    An operation that is not set is not done, so that ``{}`` changes nothing. The operations, in the order in which they
    are done: of images crop, flip, jitter, grey and blur; of vectors swap, drop and noise; of sequences shuffle, drop
    and noise; of texts delete and mask; of sounds crop, gain and noise. The other keys say how strong an operation is.
    """

    choose: Choose = Choose.each
    """Which of the operations that are set a sample gets."""

    crop: list[float] | None = None
    """Images: share of the area that is cut out and resized to the encoder's size, drawn from ``[least, most]``; null
    keeps the whole image. ``train.crop`` cuts it out of the picture as it lies in the shards, before that is resized;
    with a ``load_size``, ``resize=pad`` or a method with augmented views it is cut out of the image at its size, as
    views are. Sounds: share of the time that is kept, from a place that is drawn, too. Under ``choose=each`` every
    sample is cropped."""

    ratio: list[float] = field(default_factory=lambda: [3 / 4, 4 / 3])
    """Images: the ratio of width to height of the part that ``crop`` cuts out, drawn from ``[least, most]``."""

    flip: float = 0.0
    """Images: probability that left and right are exchanged."""

    jitter: float = 0.0
    """Images: probability that brightness, contrast, saturation and hue are changed."""

    brightness: float = 0.4
    """Images: ``jitter`` multiplies the brightness by a factor from 1 - x to 1 + x, where x is this value (0 to 1)."""

    contrast: float = 0.4
    """Images: the same for the contrast (0 to 1)."""

    saturation: float = 0.4
    """Images: the same for the saturation (0 to 1); no effect on images of one channel."""

    hue: float = 0.1
    """Images: ``jitter`` turns the hue by up to this share of a full turn either way (0 to 0.5); no effect on images of
    one channel."""

    grey: float = 0.0
    """Images: probability that all color is taken away."""

    blur: float = 0.0
    """Images: probability of a Gaussian blur."""

    sigma: list[float] = field(default_factory=lambda: [0.1, 2.0])
    """Images: standard deviation of the blur, drawn from ``[least, most]``, in pixels of the image that the encoder
    gets."""

    noise: float = 0.0
    """Vectors, sequences, sounds: probability that Gaussian noise is added."""

    noise_std: float = 0.1
    """Vectors, sequences: standard deviation of that noise, in the units of the data. Sounds: the same relative to the
    root mean square of the sound, so that 0.1 lies 20 dB below it."""

    drop: float = 0.0
    """Vectors, sequences: probability that zeros take the place of some features of a vector or some time steps of a
    sequence: of round(u * n) of the n that may be touched, where u is drawn from ``drop_share``."""

    drop_share: list[float] = field(default_factory=lambda: [0.0, 0.8])
    """Vectors, sequences: share of the features or time steps that ``drop`` takes, drawn from ``[least, most]``."""

    features: list[int] | None = None
    """Vectors, sequences: the numbers, from 0 on, of the only features that ``drop`` and ``noise`` touch; null for all.
    A unique augmentation names those that the other modality does not refer to."""

    silent: float | None = None
    """Sequences: ``drop`` and ``noise`` touch only time steps whose features have at most this root mean square; null
    for all steps."""

    shuffle: float = 0.0
    """Sequences: probability that the time steps are put into a random order."""

    swap: float = 0.0
    """Vectors: probability that the two halves of the vector change places."""

    mask: float = 0.0
    """Texts: share of the tokens that become the mask token. Special tokens of the tokenizer are left alone."""

    delete: float = 0.0
    """Texts: probability that the text loses one token. Special tokens of the tokenizer are left alone, and so is the
    only token of a text."""

    gain: float = 0.0
    """Sounds: probability that they become louder or softer."""

    decibels: list[float] = field(default_factory=lambda: [-6.0, 6.0])
    """Sounds: by how much, drawn from ``[least, most]``, in dB."""

    @property
    def operations(self) -> dict[str, float]:
        """The operations that are set, with the probability of each."""
        whole = {"crop": self.crop is not None, "mask": self.mask > 0}
        found = {name: float(whole[name]) if name in whole else getattr(self, name) for name in _KNOWN}
        return {name: probability for name, probability in found.items() if probability}

    def problems(self, key: str, kind: Kind) -> list[str]:
        """What is wrong with this entry, which stands at ``key``, for a modality of this kind, one sentence each."""
        known = kind.row.operations
        found = [
            f"{key}.{name} does not fit a modality of kind {kind.value}, which has {', '.join(known)}: leave it out"
            for name in self.operations
            if name not in known
        ]
        return found + self._places(key, kind) + self._probabilities(key) + self._strengths(key) + self._ranges(key)

    def _places(self, key: str, kind: Kind) -> list[str]:
        found = []
        if self.features is not None:
            if "features" not in kind.row.restrictions or "swap" in self.operations or "shuffle" in self.operations:
                found.append(f"{key}.features is for drop and noise of vectors and sequences alone: leave it out")
            if not self.features or min(self.features) < 0 or len(set(self.features)) < len(self.features):
                found.append(f"{key}.features is {list(self.features)}: different numbers from 0 on are needed")
        if self.silent is not None and ("silent" not in kind.row.restrictions or self.silent <= 0):
            found.append(f"{key}.silent is {self.silent}: it must be above 0, and is for sequences only")
        return found

    def _probabilities(self, key: str) -> list[str]:
        values = {name: getattr(self, name) for name in _KNOWN if name != "crop"}
        found = [
            f"{key}.{name} is {value}: it must lie between 0 and 1"
            for name, value in values.items()
            if not 0 <= value <= 1
        ]
        if self.choose is Choose.one:
            found += [
                f"{key}.{name} is {value}: with choose=one all operations are equally likely, so set it to 1 or 0"
                for name, value in values.items()
                if name != "mask" and 0 < value < 1
            ]
        return found

    def _strengths(self, key: str) -> list[str]:
        limits = {"brightness": 1.0, "contrast": 1.0, "saturation": 1.0, "hue": 0.5}
        found = [
            f"{key}.{name} is {getattr(self, name)}: it must lie between 0 and {limit:g}"
            for name, limit in limits.items()
            if not 0 <= getattr(self, name) <= limit
        ]
        if self.noise_std <= 0:
            found.append(f"{key}.noise_std is {self.noise_std}: it must be above 0")
        return found

    def _ranges(self, key: str) -> list[str]:
        found = []
        for name, top in (("crop", 1), ("ratio", math.inf), ("sigma", math.inf), ("drop_share", 1)):
            value = getattr(self, name)
            if value is None:
                continue
            above = len(value) == 2 and (value[0] > 0 or (name == "drop_share" and value[0] == 0))
            if not above or not value[0] <= value[1] <= top or math.isinf(value[1]):
                least = "0 or more" if name == "drop_share" else "above 0"
                most = "" if math.isinf(top) else f", and end at {top} or below"
                found.append(f"{key}.{name} is {list(value)}: it needs [least, most], and must start {least}{most}")
        levels = self.decibels
        if len(levels) != 2 or not -MOST_DECIBELS <= levels[0] <= levels[1] <= MOST_DECIBELS:
            limits = f"between {-MOST_DECIBELS} and {MOST_DECIBELS}"
            found.append(f"{key}.decibels is {list(levels)}: it needs [least, most], both {limits}")
        return found


def default_augment(kind: Kind) -> AugmentConfig:
    """What views of a kind get unless the config says otherwise."""
    return AugmentConfig(**kind.row.default_views)
