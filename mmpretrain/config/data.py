"""Config of the data (no torch here: the launcher reads it before anything heavy is imported)."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass, field, replace
from enum import StrEnum

from omegaconf import MISSING

from mmpretrain.config.augment import AugmentConfig, Choose, default_augment
from mmpretrain.config.keys import PATH
from mmpretrain.config.kind import Kind
from mmpretrain.config.reading import Incomplete, Unread, Verify
from mmpretrain.config.sources import LabelConfig, LayoutConfig, Mixing, SourceConfig
from mmpretrain.words import without_secrets

__all__ = [
    "AugmentConfig",
    "Choose",
    "DataConfig",
    "Decoding",
    "Incomplete",
    "Kind",
    "LabelConfig",
    "LayoutConfig",
    "Mixing",
    "ModalityConfig",
    "Padding",
    "Resize",
    "SourceConfig",
    "Unread",
    "Verify",
    "remote_problem",
]

REMOTE_SCHEMES = ("http", "https", "s3", "gs", "gcs", "az", "abfs", "hf", "memory")

# Of a background; #rrggbb.
COLOR = "white|black|gray|#[0-9a-fA-F]{6}"

# What shards call labels, evaluations what is made of several modalities, and processors the rate of sounds.
RESERVED = ("label", "fused", "shared", "unique", "one_hot", "sampling_rate")

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
    """Where ``train.crop`` cuts a part out of it that is much larger than ``size``, it is shrunk by 2, 4 or 8 while it
    is decoded, which is faster: that part is still at least 1.5 times as large as ``size``, and values differ from
    those of ``exact`` by half of 1/255 in the mean."""

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
    """Whether samples may lack this modality. Only for methods that can learn from such samples (comm)."""

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


@dataclass
class DataConfig:
    """Where the shards are and how they are streamed."""

    name: str = MISSING
    """Name of the dataset, part of the default name of a run."""

    path: str | None = field(default=None, metadata=PATH)
    """Folder with ``train/`` and ``test/`` (tars and an ``index.json`` each) and ``dataset.json``: local, or a URL.
    null: ``sources`` says where samples lie; one of both is needed."""

    build: str | None = None
    """The command that makes that folder; messages name it where the folder is missing. null: none is known."""

    modalities: dict[str, ModalityConfig] = field(default_factory=dict)
    """The modalities by name, at least two. ``data.modalities.NAME=null`` takes one out, and
    ``model.encoders.NAME=null`` its encoder. Where neither a file nor the command line names any, they are what
    ``dataset.json`` or the index of ``path`` says."""

    classes: int | None = None
    """Number of different labels, at least 2; null where samples have no labels."""

    global_batch: int = 128
    """Samples per optimizer step, over all ranks together."""

    window: int = 8
    """Shards whose samples are shuffled together."""

    workers: int = 0
    """Loader processes per rank; 0 loads in the training process."""

    prefetch_mb: float | None = None
    """Memory on each rank for batches that loader processes make ahead of their step, in MB (10^6 bytes); a batch must
    fit. null: no bound but 2 batches per process. What the processes themselves need comes on top."""

    verify: Verify = Verify.first_use
    """When a shard's sha256 is compared with the index. Shards of a URL are verified in any case, as they arrive."""

    max_bad_fraction: float = 0.01
    """Share of samples (0 to 1) that cannot be decoded and are replaced by others; above it the run ends."""

    record_keys: bool = True
    """Whether the keys of every batch are written to ``consumed.jsonl`` (large files where batches are huge)."""

    cache_gb: float = 64.0
    """Disk space on each node for the shards of a URL, in GB (10^9 bytes). The cache lies in ``$MMPRETRAIN_CACHE``."""

    more_paths: list[str] = field(default_factory=list, metadata=PATH)
    """Further folders like ``path`` whose samples belong to the same data set; a folder without a split adds nothing to
    it."""

    label: LabelConfig = field(default_factory=LabelConfig)
    """Where the labels lie; read only with ``classes``."""

    incomplete: Incomplete = Incomplete.refuse
    """What happens to samples that the index shows to be unusable."""

    unread: Unread = Unread.refuse
    """What happens where files beside the shards look like data that would not be read."""

    sources: dict[str, SourceConfig] = field(default_factory=dict)
    """In place of ``path``: several data sets, by names of your choice, that are mixed in one stream by exact shares
    (docs/data.md). ``data.sources.NAME=null`` takes one out."""

    mixing: Mixing = Mixing.weight
    """What the shares of the ``sources`` come from."""

    temperature: float = 1.0
    """Of ``mixing: temperature``, above 0: 1 is by size, and from a very high one all sources are alike."""

    @property
    def paths(self) -> list[str]:
        """Every folder of the data set."""
        if self.sources:
            return [path for source in self.sources.values() for path in source.paths]
        return [*([self.path] if self.path else []), *self.more_paths]

    @property
    def place(self) -> str:
        """Where the data set lies, in words."""
        if not self.sources:
            return str(self.path)
        return " and ".join(f"{source.path} (source {name})" for name, source in self.sources.items())

    @property
    def parts(self) -> dict[str, DataConfig]:
        """Source -> its section, as if it were a data set of its own; without sources this one, by ''."""
        if not self.sources:
            return {"": self}
        return {name: self._part(source) for name, source in self.sources.items()}

    def _part(self, source: SourceConfig) -> DataConfig:
        modalities = {
            name: replace(modality, **vars(source.modalities[name])) if name in source.modalities else modality
            for name, modality in self.modalities.items()
        }
        label, more = source.label or self.label, list(source.more_paths)
        return replace(self, path=source.path, more_paths=more, sources={}, modalities=modalities, label=label)

    def problems(self) -> list[str]:
        """What is wrong with this section, one sentence each."""
        found = [p for name, modality in self.modalities.items() for p in modality.problems(name)]
        found += self._places()
        if len(self.modalities) < 2:
            named = ", ".join(self.modalities)
            found.append(
                f"data.modalities names {len(self.modalities)}{f' ({named})' if named else ''}: contrastive pretraining"
                " needs at least 2"
            )
        bad_names = [name for name in self.modalities if not name.isidentifier() or name in RESERVED]
        found += [
            f"data.modalities.{name}: use a plain identifier, none of {', '.join(RESERVED)}" for name in bad_names
        ]
        for key in ("global_batch", "window"):
            if getattr(self, key) < 1:
                found.append(f"data.{key} is {getattr(self, key)}: it must be at least 1")
        if self.cache_gb <= 0:
            found.append(f"data.cache_gb is {self.cache_gb}: it must be above 0")
        if self.prefetch_mb is not None and self.prefetch_mb <= 0:
            found.append(f"data.prefetch_mb is {self.prefetch_mb}: it must be above 0, or null for no bound")
        if self.workers < 0:
            found.append(f"data.workers is {self.workers}: it must be 0 or more")
        if not 0 <= self.max_bad_fraction <= 1:
            found.append(f"data.max_bad_fraction is {self.max_bad_fraction}: it must lie between 0 and 1")
        if self.temperature <= 0:
            found.append(f"data.temperature is {self.temperature}: it must be above 0")
        return found

    def _places(self) -> list[str]:
        """What is wrong with where samples are said to lie."""
        if not self.sources:
            found = [] if self.path else ["data.path has no value"]
            keys = {"data.path": [self.path] if self.path else [], "data.more_paths": self.more_paths}
        elif self.path or self.more_paths:
            key, value = ("path", "null") if self.path else ("more_paths", "[]")
            return [
                f"data.{key} is {getattr(self, key)} and data.sources names {', '.join(self.sources)}, and a run reads"
                f" one or the other: set data.{key}={value}, or data.sources=null"
            ]
        else:
            found = [p for name, source in self.sources.items() for p in source.problems(name, self.modalities)]
            found += [] if found else _without_weight(self.sources)
            keys = {f"data.sources.{name}.path": [source.path] for name, source in self.sources.items()}
            keys |= {f"data.sources.{name}.more_paths": source.more_paths for name, source in self.sources.items()}
        for key, paths in keys.items():
            found += [
                f"{key} is {without_secrets(path)!r}, which {problem}"
                for path in paths
                if (problem := remote_problem(path))
            ]
        return found + self._twice()

    def _twice(self) -> list[str]:
        twice = sorted({path for path in self.paths if self.paths.count(path) > 1})
        key = "data.sources" if self.sources else "data.more_paths"
        return [f"{key} names {path!r} twice: its samples would count twice" for path in twice[:1]]


def _without_weight(sources: dict[str, SourceConfig]) -> list[str]:
    """A sentence if from some position on no source has a weight."""
    for position in sorted({0, *(int(first) for source in sources.values() for first in source.weight_from)}):
        if not any(source.weight_at(position) > 0 for source in sources.values()):
            return [f"data.sources: no source has a weight above 0 at position {position} of the stream"]
    return []


def _square(size: list[int]) -> list[int]:
    return [*size, *size] if len(size) == 1 else size


def remote_problem(path: str) -> str | None:
    """Why a path is neither local nor a URL that we fetch from, as the end of a sentence; None if it is one of them."""
    scheme = re.match(r"([A-Za-z][A-Za-z0-9+.-]*):", path)
    if scheme is None:
        return None
    if "::" in path or scheme[1] not in REMOTE_SCHEMES or not path.startswith(f"{scheme[1]}://"):
        return f"is not read: use a folder, or one plain URL of {', '.join(f'{s}://' for s in REMOTE_SCHEMES)}"
    if scheme[1].startswith("http") and "?" in path:
        return "is not read: no file can be named behind a query; use the credentials that the store's library reads"
    return None
