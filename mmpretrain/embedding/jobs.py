"""What ``embed`` and ``pair`` are asked to do, as their ranks receive it (no torch here)."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import ClassVar, Protocol

from mmpretrain.data.index import is_remote

SAMPLES_PER_SHARD = 1024


class VectorPrecision(StrEnum):
    """Type of the vectors in the shards; they are computed in float32."""

    float16 = "float16"
    float32 = "float32"


SUFFIXES = {VectorPrecision.float16: "f16", VectorPrecision.float32: "f32"}  # of columns


class ShardForm(StrEnum):
    """How the vectors lie in the shards."""

    columns = "columns"
    """As tables [n, d] (data/column_shards.py): read many at a time, and straight from mapped files."""

    samples = "samples"
    """One ``KEY.MODALITY.npy`` per sample and modality, as readers of WebDataset expect."""


class RankedJob(Protocol):
    """What the ranks of a command share. worker: the module whose ``work(job, place)`` does a rank's share, and which
    is started for local ranks, ``python -m WORKER JOB PLACE``. out: folder that all ranks see."""

    worker: ClassVar[str]

    @property
    def out(self) -> str:
        """Folder to write to."""

    def to_json(self) -> str:
        """The job as text, for other processes."""


@dataclass(frozen=True)
class EmbeddingJob:
    """What all ranks of a command share.

    out: dataset folder to make or continue. split: of every folder that is read, and of the one that is written.
    samples_per_shard: source samples behind each shard that is written, whatever the number of ranks. form: of the
    shards; None: columns in a new folder, and in one that was begun as it was begun.
    """

    kind: ClassVar[str]
    worker: ClassVar[str] = "mmpretrain.embedding.worker"

    out: str
    split: str = "train"
    dtype: VectorPrecision = VectorPrecision.float32
    samples_per_shard: int = SAMPLES_PER_SHARD
    form: ShardForm | None = None

    def problems(self) -> list[str]:
        """What is wrong with it, one sentence each."""
        found = []
        if self.samples_per_shard < 1:
            found.append(f"--samples-per-shard is {self.samples_per_shard}: it must be at least 1")
        if "/" in self.split or not self.split:
            found.append(f"--split is {self.split!r}: name a folder directly below the data set's")
        if is_remote(self.out):
            found.append(f"--out is {self.out!r}: name a local folder, and upload it when it is complete")
        return found

    def to_json(self) -> str:
        """Text from which :func:`job_from_json` makes it again."""
        return json.dumps({"kind": self.kind, **asdict(self)})


@dataclass(frozen=True)
class EmbedJob(EmbeddingJob):
    """Encode a data set by a release.

    modalities: NAME or NAME=TOWER, separated by commas; None: all that the release can encode. pool: how the states of
    a single transformers encoder become one vector (None: mean). workers: loader processes per rank.
    max_bad_fraction: share of the samples that may be unreadable, and are then left out.
    """

    kind: ClassVar[str] = "embed"

    release: str = ""
    data: str = ""
    modalities: str | None = None
    batch: int = 256
    pool: str | None = None
    workers: int = 0
    max_bad_fraction: float = 0.0

    def problems(self) -> list[str]:
        """What is wrong with it, one sentence each."""
        found = super().problems()
        if self.pool is not None and self.pool not in POOLS:
            found.append(f"--pool is {self.pool!r}: use one of {', '.join(POOLS)}")
        if self.batch < 1:
            found.append(f"--batch is {self.batch}: it must be at least 1")
        if self.workers < 0:
            found.append(f"--workers is {self.workers}: it must be 0 or more")
        if not 0 <= self.max_bad_fraction <= 1:
            found.append(f"--max-bad-fraction is {self.max_bad_fraction}: it must lie between 0 and 1")
        return found + list(_malformed(self.modalities))

    @property
    def wanted(self) -> dict[str, str | None] | None:
        """Modality of the data -> tower of the release (None: the one that fits); None: all that fit."""
        if self.modalities is None:
            return None
        parts = [entry.partition("=") for entry in self.modalities.split(",")]
        return {name.strip(): tower.strip() or None for name, _, tower in parts}


@dataclass(frozen=True)
class PairJob(EmbeddingJob):
    """Find pseudo partners of a corpus in two memories.

    first, second: embedding shards of one corpus in either space; shared: the modality that was embedded.
    first_memory, second_memory: FOLDER or FOLDER:MODALITY. allow_other_data: equal keys mean equal samples although the
    corpora were embedded from different data.
    """

    kind: ClassVar[str] = "pair"

    first: str = ""
    second: str = ""
    shared: str = ""
    first_memory: str = ""
    second_memory: str = ""
    temperature: float = 0.01
    allow_other_data: bool = False

    def problems(self) -> list[str]:
        """What is wrong with it, one sentence each."""
        found = super().problems()
        if not self.temperature > 0:
            found.append(f"--temperature is {self.temperature}: it must be above 0")
        for key in ("first", "second", "first_memory", "second_memory"):
            if is_remote(getattr(self, key)):
                found.append(f"--{key.replace('_', '-')} is {getattr(self, key)!r}: only local folders are read here")
        return found


POOLS = ("mean", "cls", "last", "pooler")
_KINDS: dict[str, Callable[..., EmbeddingJob]] = {EmbedJob.kind: EmbedJob, PairJob.kind: PairJob}


def job_from_json(text: str) -> EmbeddingJob:
    """The job that :meth:`EmbeddingJob.to_json` wrote."""
    content = json.loads(text)
    form = content["form"] and ShardForm(content["form"])
    return _KINDS[content.pop("kind")](**{**content, "dtype": VectorPrecision(content["dtype"]), "form": form})


def _malformed(modalities: str | None) -> Iterator[str]:
    for entry in modalities.split(",") if modalities is not None else ():
        name, equals, tower = (part.strip() for part in entry.partition("="))
        if not name or (equals and not tower):
            yield f"--modalities has the entry {entry!r}: write NAME, or NAME=TOWER, separated by commas"
