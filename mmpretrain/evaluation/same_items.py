"""What retrieval needs to know of samples beyond their embeddings: which hold the same item, and all of their texts.

Ranks read equal shares of the samples and tell one another what they found. Shapes: n samples, m texts, d width.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial

import numpy as np
import torch

from mmpretrain.config.evaluation import Captions as Counted
from mmpretrain.config.evaluation import RetrievalConfig
from mmpretrain.config.kind import Kind
from mmpretrain.data.decode import SampleError
from mmpretrain.data.reader import Reader
from mmpretrain.data.samples import captions_of
from mmpretrain.distributed.world import World
from mmpretrain.evaluation.embeddings import Captions, Embeddings

# This rank's texts -> (float32 [all, d], int64 [W]): see texts.embed_own_texts.
EmbedOwnTexts = Callable[[list[str]], tuple[np.ndarray, np.ndarray]]


def with_items(
    embeddings: Embeddings,
    wanted: RetrievalConfig,
    texts: Mapping[str, Kind],
    reader: Reader,
    embed: Callable[[str, list[str]], tuple[np.ndarray, np.ndarray]],
    world: World,
) -> Embeddings:
    """``embeddings`` with what ``wanted`` has retrieval count as one item, and as several; a collective.

    texts: of the modalities that are texts. embed: a modality and this rank's texts of it, as :data:`EmbedOwnTexts`.
    """
    for modality in wanted.same:
        embeddings = with_same(embeddings, modality, reader, world)
    for modality, kind in texts.items() if wanted.captions is Counted.all else ():
        embeddings = with_captions(embeddings, modality, kind, reader, partial(embed, modality), world)
    return embeddings


def with_same(embeddings: Embeddings, modality: str, reader: Reader, world: World) -> Embeddings:
    """``embeddings`` that know which samples have equal bytes in all members of ``modality``; a collective."""
    ordinals = embeddings.ordinals
    digests = torch.zeros(len(ordinals), dtype=torch.int64)
    for place in range(world.rank, len(ordinals), world.size):
        digests[place] = _digest(reader, modality, int(ordinals[place]))
    total = world.all_reduce_sum(digests.to(world.device)).cpu().numpy()
    return replace(embeddings, same={**embeddings.same, modality: np.unique(total, return_inverse=True)[1]})


def with_captions(
    embeddings: Embeddings, modality: str, kind: Kind, reader: Reader, embed: EmbedOwnTexts, world: World
) -> Embeddings:
    """``embeddings`` with all texts of ``modality``, sample by sample; a collective. Raises what ``embed`` raises.

    A sample whose texts cannot be read has none, as one that lacks the modality.
    """
    ordinals = embeddings.ordinals
    share = -(-len(ordinals) // world.size)
    texts: list[str] = []
    owners = torch.full((len(ordinals),), 0, dtype=torch.int64)
    for place in range(world.rank * share, min((world.rank + 1) * share, len(ordinals))):
        found = _texts(reader, modality, kind, int(ordinals[place]))
        owners[place] = len(found)
        texts += found
    rows, _ = embed(texts)
    counts = world.all_reduce_sum(owners.to(world.device)).cpu().numpy()
    captions = Captions(rows, np.repeat(np.arange(len(ordinals)), counts))
    present = embeddings.having([modality]) & (counts > 0)
    known = {**embeddings.present, modality: present} if not present.all() else embeddings.present
    return replace(embeddings, captions={**embeddings.captions, modality: captions}, present=known)


def _digest(reader: Reader, modality: str, ordinal: int) -> int:
    """63 bits of the bytes of all of the modality's members."""
    sample, holders = reader.sample(ordinal), reader.members_of(ordinal).modalities[modality]
    hashed = hashlib.sha256()
    for member in holders.members:
        if member in sample:
            hashed.update(hashlib.sha256(sample[member]).digest())
    return int.from_bytes(hashed.digest()[:8], "big") >> 1


def _texts(reader: Reader, modality: str, kind: Kind, ordinal: int) -> list[str]:
    try:
        texts = captions_of(reader.sample(ordinal), kind, reader.members_of(ordinal).modalities[modality])
    except SampleError:
        return []
    return [text for text in texts if text.strip()]
