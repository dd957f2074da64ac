"""The embeddings of whole splits by one of the models that are compared, of the samples that all of them can read."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

import torch

from mmpretrain.comparison.job import EvaluateJob
from mmpretrain.comparison.needs import Looked
from mmpretrain.comparison.space_model import SpaceModel
from mmpretrain.config.data import DataConfig
from mmpretrain.console import CommandError
from mmpretrain.data.batch import Batch, Replacement
from mmpretrain.data.index import Index
from mmpretrain.data.stream import Stream
from mmpretrain.distributed.world import World
from mmpretrain.embedding.choice import reading
from mmpretrain.embedding.jobs import EmbedJob
from mmpretrain.embedding.space import Space
from mmpretrain.evaluation.embeddings import Embeddings, embed_split

log = logging.getLogger(__name__)

Readings = Mapping[str, Mapping[str, DataConfig]]  # model -> split -> how its modalities are read


class SplitEmbedder:
    """Embeds splits by one model. readings: how each model of the comparison reads its modalities: all of them are read
    for every model, so that a sample that one of them cannot use counts for none.

    counted: split -> how many samples could not be read, of those that were embedded.
    """

    def __init__(self, job: EvaluateJob, model: Looked, space: Space, readings: Readings, world: World) -> None:
        self._job, self._looked, self._space, self._readings, self._world = job, model, space, readings, world
        self.counted: dict[str, int] = {}

    def embed(self, split: str) -> Embeddings:
        """A collective. Raises CommandError for too many unreadable samples, or embeddings that are not finite."""
        job, world, name = self._job, self._world, self._looked.name
        model = SpaceModel(self._space, self._looked.towers, incomplete(self._own(split)), self._looked.widths)
        stream = self._stream(split, model)
        bad: list[Replacement] = []
        if world.rank == 0:
            log.info("%s: embedding %s, %d samples", name, split, min(len(stream.index), job.limit))
        batches = _noted(stream.split_batches(job.batch, job.limit), bad)
        try:
            found = embed_split(model, batches, world, world.device)
        except ValueError as error:
            raise CommandError([f"{name} cannot be measured on {split}: {error}"]) from None
        self.counted[split] = self._judged(split, len(stream.index), bad)
        return found

    def _stream(self, split: str, model: SpaceModel) -> Stream:
        every = {k: v for of_model in self._readings.values() for k, v in of_model[split].modalities.items()}
        own, world = self._own(split), self._world
        config = replace(own, modalities=every | own.modalities)
        return Stream(config, split, 0, world.rank, world.size, model.processor, device=world.device)

    def _own(self, split: str) -> DataConfig:
        return self._readings[self._looked.name][split]

    def _judged(self, split: str, size: int, bad: list[Replacement]) -> int:
        """How many samples were left out. Raises CommandError, on all ranks, if these are too many."""
        count = min(size, self._job.limit)
        last = (count - 1) * size // count  # its row is repeated to fill batches, on several ranks
        places = {entry.position for entry in bad}
        mine = torch.tensor([len(places - {last})], device=self._world.device)
        found = int(self._world.all_reduce_sum(mine).item()) + self._world.max_flag(last in places)
        if found > self._job.max_bad_fraction * count:
            which = "".join(f" ({e.key!r} in {e.shard}: {e.error})" for e in bad[:1])
            raise CommandError(
                [
                    f"{found} of {count} samples of {split} cannot be read{which}, more than --max-bad-fraction"
                    f" {self._job.max_bad_fraction:g} allows: repair the shards or raise it"
                ]
            )
        return found


def data_config(job: EvaluateJob, space: Space, towers: Mapping[str, str], split: str, index: Index) -> DataConfig:
    """How the stream reads what a space embeds of a split."""
    asked = EmbedJob(out="", release=space.name, data=job.data, split=split, batch=job.batch, workers=job.workers)
    return reading(asked, space, index, towers)


def incomplete(config: DataConfig) -> list[str]:
    """The modalities that some samples lack."""
    return [name for name, modality in config.modalities.items() if modality.optional]


def _noted(batches: Iterable[Batch], bad: list[Replacement]) -> Iterator[Batch]:
    """The batches; what they could not read is added to ``bad``."""
    for batch in batches:
        bad += batch.replaced
        yield batch
