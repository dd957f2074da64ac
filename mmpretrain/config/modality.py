"""Config of one modality (no torch here)."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass, replace
from enum import StrEnum

from omegaconf import MISSING

from mmpretrain.config.augment import AugmentConfig, default_augment
from mmpretrain.config.kind import Kind
from mmpretrain.config.negatives import NegativesConfig

# Of a background; #rrggbb.
COLOR = "white|black|gray|#[0-9a-fA-F]{6}"

# Samples per second, and seconds.
MOST = {"sampling_rate": 384_000, "seconds": 600.0, "load_seconds": 600.0}


class Resize(StrEnum):
    """How an image of other proportions comes to its size."""

    crop = "crop"
    """It is resized until it just covers the size, and its middle is cut out."""

    pad = "pad"
    """It is resized until all of it fits, and lies in the middle of its background."""

    squash = "squash"
    """It is resized to the size, whatever becomes of its proportions."""


class Decoding(StrEnum):
    """How a large JPEG is decoded in training."""

    scaled = "scaled"
    """One that is much larger than ``size``, or of which ``train.crop`` cuts out such a part, is shrunk by 2, 4 or 8
    while it is decoded, which is faster: what counts of it is still at least 1.5 times as large as ``size``, and values
    differ from those of ``exact`` by half of 1/255 in the mean. Evaluations and releases never do it."""

    exact = "exact"
    """At its full size."""


class Padding(StrEnum):
    """To what length the texts or sequences of a batch are padded."""

    auto = "auto"
    """By the batch where that changes no embedding, else to the full length; the run says so where it is the latter."""

    batch = "batch"
    """To the longest of the batch, rounded up to a multiple of 8; refused for an encoder whose embeddings depend on how
    much padding there is."""

    full = "full"
    """To ``max_length``, or the time steps of ``size``, in every batch."""


@dataclass
class ModalityConfig:
    """One modality of a dataset. NAME is what shards call it where nothing else is said: samples are the files
    ``KEY.NAME.EXTENSION``."""

    kind: Kind = MISSING
    """What the bytes of the modality are."""

    size: list[int] = dataclasses.field(default_factory=list)
    """What encoders get: of an image ``[height, width]`` in pixels (one number: a square), of a vector ``[features]``,
    of a sequence ``[time steps, features]`` (shorter ones are padded, longer ones cut). Unused for texts and sounds."""

    channels: int = 3
    """Images: 1 (grey) or 3 (RGB)."""

    max_length: int = 77
    """Texts: tokens that are kept."""

    padding: Padding = Padding.auto
    """Texts and sequences: to what length those of a batch are padded."""

    optional: bool = False
    """Whether samples may lack this modality. Only for methods that can learn from such samples (comm, clip,
    siglip)."""

    load_size: list[int] | None = None
    """Images: ``[height, width]`` in pixels (one number: a square) at which an image is handed to augmentations, at
    least ``size``; null: ``size``."""

    decoding: Decoding = Decoding.scaled
    """Images: how a large JPEG is decoded in training. Evaluations and releases decode every picture at its full
    size."""

    resize: Resize | None = None
    """Images: how those of other proportions come to ``size``; null: as pretrained weights say they were trained, else
    crop."""

    background: str | None = None
    """Images: what lies behind transparency, and around an image that is padded: white, black, gray or ``"#rrggbb"``;
    null: that of the release that the encoder starts from, else white."""

    sampling_rate: int | None = None
    """Sounds: samples per second (Hz) that encoders get; files of other rates are resampled. null: the rate that the
    feature extractor was made for."""

    seconds: float | None = None
    """Sounds: how long they are when encoders get them; of longer ones the first part counts, shorter ones are filled
    up. null: what the feature extractor was made for, and 10 where it takes any length."""

    load_seconds: float | None = None
    """Sounds: how much of a sound is handed to augmentations, in seconds, at least ``seconds``, so that ``crop`` has
    more to choose from; null: ``seconds``."""

    augment: AugmentConfig | None = None
    """Augmentation of the views that methods with augmented views compare; null: the default of the kind. That is
    ``{crop: [0.08, 1.0], flip: 0.5, jitter: 0.8, grey: 0.2, blur: 0.5}`` for images, ``{drop: 0.5, noise: 0.5}`` for
    sequences, ``{noise: 0.5}`` for vectors and ``{mask: 0.15}`` for texts (CoMM's), and ``{crop: [0.5, 1.0], gain: 0.5,
    noise: 0.5}`` for sounds."""

    unique: AugmentConfig | None = None
    """FactorCL's unique augmentation, which keeps what the other modality refers to; null: ``augment``, for images
    and sounds without its crop."""

    train: AugmentConfig | None = None
    """Augmentation of the plain inputs of every method in training; null: none."""

    member: list[str] = dataclasses.field(default_factory=list)
    """What follows the key in the names of the members that hold it: ``[jpg, png]`` reads ``KEY.jpg`` or ``KEY.png``,
    whichever a sample has. Of texts a sample may have several, and one is drawn for each stream position. Empty:
    ``NAME.EXTENSION``, or, where no member is called NAME, the ones without a modality in their names whose extension
    fits the kind."""

    field: list[str] = dataclasses.field(default_factory=list)
    """Texts in JSON members: the keys whose values (a string or a list of strings) are captions of the sample. Empty:
    the member is a string or a list of strings itself."""

    weights: list[float] = dataclasses.field(default_factory=list)
    """Several texts: how often each of ``field`` (else each of ``member``) is drawn, relative to the others; those
    that a sample lacks are left out, and the captions of a list share its weight. Empty: all captions alike.
    Evaluations take the first caption."""

    negatives: NegativesConfig | None = None
    """Texts: where samples hold hard negatives, which the other modalities' rows see as further keys in training
    (docs/contrastive.md); null: nowhere. Only for methods that take them (clip, siglip)."""

    def __post_init__(self) -> None:
        """One number is the side of a square, so that a resolved config has both."""
        if isinstance(self.kind, Kind) and self.kind.row.resized:
            self.size = _square(self.size)
            self.load_size = None if self.load_size is None else _square(self.load_size)

    @property
    def prepared_apart(self) -> bool:
        """Whether augmentations start from other tensors than those that encoders get."""
        return self.load_size is not None or self.kind.row.extracted

    @property
    def view(self) -> AugmentConfig:
        """What views get."""
        return self.augment or default_augment(self.kind)

    @property
    def unique_view(self) -> AugmentConfig:
        """What views with the unique augmentation get."""
        return self.unique or replace(self.view, crop=None)

    def problems(self, name: str) -> list[str]:
        """What is wrong with this entry, one sentence each."""
        key = f"data.modalities.{name}"
        row = self.kind.row
        found = self._holders(key)
        if row.size and (len(self.size) != len(row.size) or min(self.size, default=0) < 1):
            found.append(f"{key}.size is {list(self.size)}: {self.kind.value}s need {row.size_form}, all > 0")
        if "channels" in row.described_by and self.channels not in (1, 3):
            found.append(f"{key}.channels is {self.channels}: use 1 (grey) or 3 (RGB)")
        if "max_length" in row.described_by and self.max_length < 2:
            found.append(f"{key}.max_length is {self.max_length}: a text needs at least 2 tokens")
        if self.padding is not Padding.auto and not row.padded:
            found.append(f"{key}.padding is for texts and sequences, and {key} is a {self.kind.value}: leave it out")
        found += self._preparation(key)
        for part in ("augment", "unique", "train"):
            augment: AugmentConfig | None = getattr(self, part)
            found += augment.problems(f"{key}.{part}", self.kind) if augment else []
            if augment and augment.features and self.size and max(augment.features) >= self.size[-1]:
                found.append(f"{key}.{part}.features is {list(augment.features)}: {key} has {self.size[-1]}")
        return found + self._load_size(key) + self._sound(key)

    def _holders(self, key: str) -> list[str]:
        """What is wrong with where it is said to lie."""
        found = []
        if self.field and not self.kind.row.listed:
            found.append(f"{key}.field is for texts, and {key} is a {self.kind.value}: leave it out")
        ways = self.field or self.member
        if self.weights and (len(self.weights) != len(ways) or min(self.weights) < 0 or not max(self.weights)):
            named = f"{key}.{'field' if self.field else 'member'}"
            found.append(
                f"{key}.weights is {list(self.weights)}: it needs a number of 0 or more for each of {named}"
                f" ({', '.join(ways) or 'which is empty'}), and one above 0"
            )
        if self.negatives is not None and not self.kind.row.listed:
            found.append(f"{key}.negatives is for texts, and {key} is a {self.kind.value}: leave it out")
        elif self.negatives is not None:
            found += self.negatives.problems(f"{key}.negatives")
        repeated = sorted({way for way in self.member if self.member.count(way) > 1})
        return found + [f"{key}.member names {way} twice" for way in repeated]

    def _preparation(self, key: str) -> list[str]:
        given = [name for name in ("resize", "background") if getattr(self, name) is not None]
        if not self.kind.row.resized:
            return [f"{key}.{name} is for images, and {key} is a {self.kind.value}: leave it out" for name in given]
        if self.background is None or re.fullmatch(COLOR, self.background):
            return []
        return [f'{key}.background is {self.background!r}: use white, black, gray, or "#rrggbb" in quotes']

    def _load_size(self, key: str) -> list[str]:
        if self.load_size is None:
            return []
        if not self.kind.row.resized:
            return [f"{key}.load_size is for images, and {key} is a {self.kind.value}: leave it out"]
        if len(self.load_size) != 2 or any(a < b for a, b in zip(self.load_size, self.size, strict=False)):
            return [f"{key}.load_size is {list(self.load_size)}: it needs [height, width], at least size={self.size}"]
        return []

    def _sound(self, key: str) -> list[str]:
        given = {name: getattr(self, name) for name in ("sampling_rate", "seconds", "load_seconds")}
        given = {name: value for name, value in given.items() if value is not None}
        if not self.kind.row.extracted:
            return [f"{key}.{name} is for sounds, and {key} is a {self.kind.value}: leave it out" for name in given]
        found = [
            f"{key}.{name} is {value}: it must be above 0 and at most {MOST[name]:g}"
            for name, value in given.items()
            if not 0 < value <= MOST[name]
        ]
        if self.load_seconds is not None and (self.seconds is None or self.load_seconds < self.seconds):
            found.append(f"{key}.load_seconds is {self.load_seconds}: set {key}.seconds too, to no more than that")
        return found


def _square(size: list[int]) -> list[int]:
    return [*size, *size] if len(size) == 1 else size
