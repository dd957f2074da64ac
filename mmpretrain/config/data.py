"""Config of the data (no torch here: the launcher reads it before anything heavy is imported)."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from enum import StrEnum

from omegaconf import MISSING

from mmpretrain.config.augment import AugmentConfig, Choose, default_augment
from mmpretrain.config.kind import Kind

__all__ = ["AugmentConfig", "Choose", "DataConfig", "Kind", "ModalityConfig", "Verify", "remote_problem"]

REMOTE_SCHEMES = ("http", "https", "s3", "gs", "gcs", "az", "abfs", "hf", "memory")

# What shards call labels, and evaluations what is made of several modalities.
RESERVED = ("label", "fused", "shared", "unique", "one_hot")


class Verify(StrEnum):
    """When a shard's sha256 is compared with the index."""

    first_use = "first_use"
    never = "never"


@dataclass
class ModalityConfig:
    """One modality of a dataset.

    size: image [height, width] in pixels, vector [features], sequence [time steps, features] (shorter ones are padded,
    longer ones cut); unused for text. channels: 1 or 3 (images). max_length: tokens kept (text). optional: samples may
    lack it (methods that can learn from those only).

    load_size: of an image when it is handed to augmentations, [height, width], at least size; null: size. augment: what
    the views of a method that augments get; null: the usual of the kind. unique: FactorCL's augmentation that keeps
    what the other modality refers to; null: augment, for images without the crop. train: what the plain inputs of
    every method get in training; null: nothing.
    """

    kind: Kind = MISSING
    size: list[int] = field(default_factory=list)
    channels: int = 3
    max_length: int = 77
    optional: bool = False
    load_size: list[int] | None = None
    augment: AugmentConfig | None = None
    unique: AugmentConfig | None = None
    train: AugmentConfig | None = None

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
        found = []
        if row.size and (len(self.size) != len(row.size) or min(self.size, default=0) < 1):
            found.append(f"{key}.size is {list(self.size)}: a {self.kind.value} needs {row.size_form}, all > 0")
        if "channels" in row.described_by and self.channels not in (1, 3):
            found.append(f"{key}.channels is {self.channels}: use 1 (grey) or 3 (RGB)")
        if "max_length" in row.described_by and self.max_length < 2:
            found.append(f"{key}.max_length is {self.max_length}: a text needs at least 2 tokens")
        for part in ("augment", "unique", "train"):
            augment: AugmentConfig | None = getattr(self, part)
            found += augment.problems(f"{key}.{part}", self.kind) if augment else []
            if augment and augment.features and self.size and max(augment.features) >= self.size[-1]:
                found.append(f"{key}.{part}.features is {list(augment.features)}: {key} has {self.size[-1]}")
        return found + self._load_size(key)

    def _load_size(self, key: str) -> list[str]:
        if self.load_size is None:
            return []
        if not self.kind.row.resized:
            return [f"{key}.load_size is for images, and {key} is a {self.kind.value}: leave it out"]
        if len(self.load_size) != 2 or any(a < b for a, b in zip(self.load_size, self.size, strict=False)):
            return [f"{key}.load_size is {list(self.load_size)}: it needs [height, width], at least size={self.size}"]
        return []


@dataclass
class DataConfig:
    """Where the shards are and how they are streamed.

    path: folder with ``train/`` and ``test/`` (tars and an index.json each) and ``dataset.json``, local or a URL.
    cache_gb: disk of each node for the shards of a URL, in 10^9 bytes (where: $MMPRETRAIN_CACHE).
    build: the command that makes that folder, named in messages. classes: number of labels, null if unlabeled.
    global_batch: samples per optimizer step over all ranks. window: shards whose samples are shuffled together.
    workers: loader processes per rank (0: in the training process). max_bad_fraction: share of undecodable samples
    that ends the run. record_keys: write the keys of every batch to consumed.jsonl (long for huge batches).
    """

    name: str = MISSING
    path: str = MISSING
    build: str | None = None
    modalities: dict[str, ModalityConfig] = field(default_factory=dict)
    classes: int | None = None
    global_batch: int = 128
    window: int = 8
    workers: int = 0
    verify: Verify = Verify.first_use
    max_bad_fraction: float = 0.01
    record_keys: bool = True
    cache_gb: float = 64.0

    def problems(self) -> list[str]:
        """What is wrong with this section, one sentence each."""
        found = [p for name, modality in self.modalities.items() for p in modality.problems(name)]
        if len(self.modalities) < 2:
            found.append(f"data.modalities names {len(self.modalities)}: contrastive pretraining needs at least 2")
        bad_names = [name for name in self.modalities if not name.isidentifier() or name in RESERVED]
        found += [
            f"data.modalities.{name}: use a plain identifier, none of {', '.join(RESERVED)}" for name in bad_names
        ]
        for key in ("global_batch", "window"):
            if getattr(self, key) < 1:
                found.append(f"data.{key} is {getattr(self, key)}: it must be at least 1")
        remote = remote_problem(self.path)
        if remote is not None:
            found.append(f"data.path is {self.path!r}, which {remote}")
        if self.cache_gb <= 0:
            found.append(f"data.cache_gb is {self.cache_gb}: it must be above 0")
        if self.workers < 0:
            found.append(f"data.workers is {self.workers}: it must be 0 or more")
        if not 0 <= self.max_bad_fraction <= 1:
            found.append(f"data.max_bad_fraction is {self.max_bad_fraction}: it must lie between 0 and 1")
        return found


def remote_problem(path: str) -> str | None:
    """Why a path is neither local nor a URL that we fetch from, as the end of a sentence; None if it is one of them."""
    scheme = re.match(r"([A-Za-z][A-Za-z0-9+.-]*):", path)
    if scheme is None:
        return None
    if "::" in path or scheme[1] not in REMOTE_SCHEMES or not path.startswith(f"{scheme[1]}://"):
        return f"is not read: use a folder, or one plain URL of {', '.join(f'{s}://' for s in REMOTE_SCHEMES)}"
    return None
