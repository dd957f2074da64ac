"""Config of the augmentations (no torch here)."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import StrEnum

from mmpretrain.config.kind import KINDS, Kind

_KNOWN = tuple(dict.fromkeys(name for row in KINDS.values() for name in row.operations))


class Choose(StrEnum):
    """Which operations a sample gets: each by its own probability, or exactly one of those set or none, all equally
    likely."""

    each = "each"
    one = "one"


@dataclass
class AugmentConfig:
    """What is done to one modality; an operation that is not set is not done, so that ``{}`` changes nothing.

    Images, in this order: crop: share [least, most] of the area that is cut out and resized, null for the whole image;
    ratio: of its width to its height. flip, jitter, grey, blur: probabilities. brightness, contrast, saturation: jitter
    takes factors from 1 - x to 1 + x; hue: in turns, up to so much either way (images of one channel have neither
    saturation nor hue). sigma: [least, most] of the blur, in pixels of the result.
    Sequences and vectors, in this order: shuffle: probability of a random order of time steps (sequences). swap: of
    swapped halves (vectors). drop: of zeros in place of round(u * n) of the n time steps of a sequence or features of
    a vector, u uniform in drop_share. noise: of Gaussian noise of standard deviation noise_std. features: numbers of
    the only ones that drop and noise touch, null for all (for a unique augmentation: those that the other modality does
    not speak of). silent: of the only time steps that they touch, the largest root mean square, null for all steps.
    Texts: mask: share of the tokens that become the mask token. delete: probability of losing one token. Neither
    touches the tokenizer's special tokens.
    """

    choose: Choose = Choose.each
    crop: list[float] | None = None
    ratio: list[float] = field(default_factory=lambda: [3 / 4, 4 / 3])
    flip: float = 0.0
    jitter: float = 0.0
    brightness: float = 0.4
    contrast: float = 0.4
    saturation: float = 0.4
    hue: float = 0.1
    grey: float = 0.0
    blur: float = 0.0
    sigma: list[float] = field(default_factory=lambda: [0.1, 2.0])
    noise: float = 0.0
    noise_std: float = 0.1
    drop: float = 0.0
    drop_share: list[float] = field(default_factory=lambda: [0.0, 0.8])
    features: list[int] | None = None
    silent: float | None = None
    shuffle: float = 0.0
    swap: float = 0.0
    mask: float = 0.0
    delete: float = 0.0

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
            if "drop" not in kind.row.operations or "swap" in self.operations or "shuffle" in self.operations:
                found.append(f"{key}.features is for drop and noise of vectors and sequences alone: leave it out")
            if not self.features or min(self.features) < 0 or len(set(self.features)) < len(self.features):
                found.append(f"{key}.features is {list(self.features)}: different numbers from 0 on are needed")
        if self.silent is not None and ("shuffle" not in kind.row.operations or self.silent <= 0):
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
        return found


def default_augment(kind: Kind) -> AugmentConfig:
    """What views of a kind get unless the config says otherwise."""
    return AugmentConfig(**kind.row.default_views)
