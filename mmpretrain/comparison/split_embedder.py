"""The embeddings of whole splits by one of the models that are compared, of the samples that all of them can read."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import torch

from mmpretrain.comparison.job import EvaluateJob
from mmpretrain.comparison.looking import Looked, incomplete
from mmpretrain.comparison.space_model import SpaceModel
from mmpretrain.config.data import ModalityConfig
from mmpretrain.config.evaluation import Captions
from mmpretrain.console import CommandError
from mmpretrain.data.batch import Batch, Replacement
from mmpretrain.data.stream import Stream
from mmpretrain.distributed.world import World
from mmpretrain.embedding.space import Space
from mmpretrain.evaluation.embeddings import Embeddings, embed_split
from mmpretrain.evaluation.same_items import with_items
from mmpretrain.evaluation.texts import embed_own_texts, embed_texts

log = logging.getLogger(__name__)


class SplitEmbedder:
    """Embeds splits by one model; all methods are collectives.

    modalities: split -> all that any model of the comparison embeds, and how it is read: all of them are read for every
    model, so that a sample that one of them cannot use counts for none.
    unreadable: split -> how many samples could not be read, of the splits that were embedded.
    """

    def __init__(
        self,
        job: EvaluateJob,
        model: Looked,
        space: Space,
        modalities: Mapping[str, Mapping[str, ModalityConfig]],
        world: World,
    ) -> None:
        self._job, self._looked, self._space, self._modalities, self._world = job, model, space, modalities, world
        self._settings = job.evaluation()
        self._known: dict[str, Embeddings] = {}
        self.unreadable: dict[str, int] = {}

    def embed(self, split: str) -> Embeddings:
        """Raises CommandError for too many unreadable samples, or embeddings that are not finite."""
        if split not in self._known:
            self._known[split] = self._embedded(split, dict(self._looked.towers))
        return self._known[split]

    def embed_items(self, split: str) -> Embeddings:
        """As :meth:`embed`, with what retrieval counts as one item, and as several, of the split that is measured on.

        Raises CommandError for a modality that is not embedded.
        """
        found, wanted, world = self.embed(split), self._settings.retrieval, self._world
        if split != self._settings.split:
            return found
        if strange := [name for name in wanted.same if name not in self._looked.towers]:
            raise CommandError([f"--set retrieval.same: {self._looked.name} does not embed {strange[0]!r}"])
        model = self._model(())
        texts = model.texts if wanted.captions is Captions.all else []
        if not wanted.same and not texts:
            return found
        kinds = {name: self._looked.kinds[name] for name in texts}
        own, reader = partial(self._own_texts, model), self._stream(split, model).reader
        return with_items(found, wanted, kinds, reader, own, world)

    def _own_texts(self, model: SpaceModel, name: str, texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
        world, batch = self._world, self._job.batch
        return embed_own_texts(model, model.processor, name, texts, world, world.device, batch)

    def embed_without(self, split: str, modality: str) -> Embeddings:
        """As :meth:`embed`, by a model that is not given one of its modalities."""
        return self._embedded(split, {n: tower for n, tower in self._looked.towers.items() if n != modality})

    def prompts(self, texts: Sequence[str]) -> Mapping[str, np.ndarray]:
        """Modality that is a text -> float32 [number of texts, d]."""
        model = self._model(())
        world, batch = self._world, self._job.batch
        return embed_texts(model, model.processor, model.texts, texts, world, world.device, batch)

    def _embedded(self, split: str, towers: dict[str, str]) -> Embeddings:
        name, world = self._looked.name, self._world
        model = self._model(incomplete(self._looked.readings[split]), towers)
        stream = self._stream(split, model)
        bad: list[Replacement] = []
        if world.rank == 0:
            log.info("%s: embedding %s, %d samples", name, split, min(len(stream.index), self._job.limit))
        try:
            batches = _noted(stream.split_batches(self._job.batch, self._job.limit), bad)
            found = embed_split(model, batches, world, world.device)
        except ValueError as error:
            raise CommandError([f"{name} cannot be measured on {split}: {error}"]) from None
        self.unreadable[split] = self._judged(split, len(stream.index), bad)
        return found

    def _model(self, incomplete: Collection[str], towers: Mapping[str, str] | None = None) -> SpaceModel:
        looked = self._looked
        columns = looked.answers.columns if looked.answers else None
        return SpaceModel(self._space, dict(towers or looked.towers), incomplete, looked.widths, columns)

    def _stream(self, split: str, model: SpaceModel) -> Stream:
        config, world = self._looked.readings[split], self._world
        config = replace(config, modalities={**self._modalities[split], **config.modalities})
        return Stream(config, split, 0, world.rank, world.size, model.processor, device=world.device)

    def _judged(self, split: str, size: int, bad: Sequence[Replacement]) -> int:
        """How many samples were left out. Raises CommandError, on all ranks, if these are too many."""
        count = min(size, self._job.limit)
        last = (count - 1) * size // count  # its row is repeated to fill batches, on several ranks
        places = {entry.position for entry in bad}
        mine = torch.tensor([len(places - {last})], device=self._world.device)
        found = int(self._world.all_reduce_sum(mine).item()) + self._world.max_flag(last in places)
        if found > self._job.max_bad_fraction * count:
            which = "".join(f" (as {entry.key!r} in {entry.shard}: {entry.error})" for entry in bad[:1])
            raise CommandError(
                [
                    f"{found} of {count} samples of {split} cannot be read{which}, more than --max-bad-fraction"
                    f" {self._job.max_bad_fraction:g} allows: repair the shards or raise it"
                ]
            )
        return found


def _noted(batches: Iterable[Batch], bad: list[Replacement]) -> Iterator[Batch]:
    """The batches; what they could not read is added to ``bad``."""
    for batch in batches:
        bad += batch.replaced
        yield batch
