"""A release and a dataset, opened together: what `mmpretrain explain` and `mmpretrain report` work on.

A release of this project, or a transformers model with image and text embeddings (CLIP or like it), whose towers then
stand for the dataset's image and text. Code that lies in a release is never run: the classes are this installation's.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from mmpretrain.config.data import DataConfig, Kind, ModalityConfig
from mmpretrain.data.batcher import Processor
from mmpretrain.data.discovery import Discovery, placed
from mmpretrain.data.index import load_index
from mmpretrain.data.info import DatasetInfo, load_info
from mmpretrain.data.quarantine import BadDataError
from mmpretrain.data.split import TRAIN, split_folder
from mmpretrain.data.stream import Stream
from mmpretrain.distributed.world import World
from mmpretrain.embedding.space import PixelStatistics, Space
from mmpretrain.embedding.spaces import OwnSpace, open_space
from mmpretrain.embedding.transformers_spaces import DualSpace
from mmpretrain.evaluation.embeddings import Embeddings, embed_split
from mmpretrain.explain.decomposition import CodesOrigin
from mmpretrain.models.dual_mmpretrain import tower_features
from mmpretrain.models.modeling_mmpretrain import MMPretrainOutput
from mmpretrain.words import without_secrets

BATCH = 128


@dataclass(frozen=True)
class Opened:
    """model: in evaluation mode, without gradients for its parameters; modality -> tensors to an output with
    ``embeds``. processor: raw samples to these tensors. tokenizers: of the texts. pixels: statistics that the processor
    takes from images. info: of the dataset, None if nothing describes it."""

    model: nn.Module
    processor: Processor
    tokenizers: dict[str, Any]
    pixels: dict[str, PixelStatistics]
    data: DataConfig
    info: DatasetInfo | None
    device: torch.device

    @property
    def pair(self) -> tuple[str, str]:
        """The two modalities."""
        first, second = self.data.modalities
        return first, second

    @property
    def kinds(self) -> dict[str, Kind]:
        """Modality -> kind, of the pair."""
        return {name: modality.kind for name, modality in self.data.modalities.items()}

    @property
    def origin(self) -> CodesOrigin:
        """Whether the model gives common and individual codes itself."""
        own = getattr(self.model.config, "components", None) is not None
        return CodesOrigin.model if own else CodesOrigin.closed_form

    def stream(self, split: str) -> Stream:
        """The samples of a split. Raises ShardError."""
        return Stream(self.data, split, 0, 0, 1, self.processor)

    def embed(self, split: str, limit: int) -> Embeddings:
        """The embeddings of at most ``limit`` evenly spaced samples of a split.

        Raises ValueError if too many of them cannot be used.
        """
        batches = self.stream(split).split_batches(BATCH, limit)
        try:
            return embed_split(self.model, batches, World.single(), self.device)
        except BadDataError as error:
            raise ValueError(
                f"{split} of {without_secrets(str(self.data.path))} does not fit the release: {error}"
            ) from None


def open_release(release: str, data: str, pair: Sequence[str] | None, device: torch.device) -> Opened:
    """``release``: folder or Hub id. ``data``: folder with shards. pair: two modalities, None: the first two.

    Raises Unusable for a release that cannot be opened, and ValueError, naming what is at hand, for one that does not
    embed two modalities of the data.
    """
    info, space = _info(data), open_space(release, device)
    parts = _ours(space) if isinstance(space, OwnSpace) else _towers(release, space, _held(data, info))
    names = tuple(pair or list(parts.modalities)[:2])
    if len(set(names)) != 2 or not set(names) <= set(parts.modalities):
        raise ValueError(
            f"two of the modalities {', '.join(parts.modalities)} are needed, got {', '.join(names) or 'none'}: name"
            " them with --pair FIRST,SECOND"
        )
    if lacking := [name for name in names if info and name not in info.modalities]:
        raise ValueError(
            f"{data} has no modality {lacking[0]!r}, only {', '.join(info.modalities) if info else 'none'}, and the"
            f" release embeds {', '.join(parts.modalities)}: take other data, or name two that both have with --pair"
        )
    modalities = {name: parts.modalities[name] for name in names}
    if info is None:  # as in training, the shards themselves say where everything lies
        modalities, _ = placed(modalities, load_index(split_folder(data, TRAIN)))
    config = DataConfig(name=info.name if info else release, path=data, modalities=modalities, classes=_classes(info))
    return Opened(parts.model.eval(), parts.processor, parts.tokenizers, parts.pixels, config, info, device)


@dataclass(frozen=True)
class _Parts:
    """What a release gives. modalities: those that it embeds."""

    model: nn.Module
    processor: Processor
    tokenizers: dict[str, Any]
    pixels: dict[str, PixelStatistics]
    modalities: dict[str, ModalityConfig]


def _ours(space: OwnSpace) -> _Parts:
    entries = space.processor.modalities
    modalities = {name: replace(m, optional=entries[name].get("optional", False)) for name, m in space.towers.items()}
    images = {name: entry for name, entry in entries.items() if entry["kind"] == Kind.image.value}
    usual = {name: [0.5] * entry["channels"] for name, entry in images.items()}
    pixels = {name: (e.get("mean", usual[name]), e.get("std", usual[name])) for name, e in images.items()}
    return _Parts(space.model, space.processor, space.processor.tokenizers, pixels, modalities)


class Towers(nn.Module):
    """A model with ``get_image_features`` and ``get_text_features`` as a release's. kinds: modality -> kind."""

    def __init__(self, model: Any, kinds: dict[str, Kind]) -> None:
        super().__init__()
        self.model, self.config, self._kinds = model, model.config, kinds

    def forward(self, /, **inputs: dict[str, Tensor]) -> MMPretrainOutput:
        """Modality -> keyword tensors of its tower, to ``embeds``."""
        found = {name: tower_features(self.model, self._kinds[name], tensors) for name, tensors in inputs.items()}
        return MMPretrainOutput(embeds=found)


def _towers(release: str, space: Space, modalities: Mapping[str, Mapping[str, Any]]) -> _Parts:
    """Such a model, with the first image and the first text of the dataset, whose ``modalities`` are these."""
    if not isinstance(space, DualSpace) or set(space.towers) != {Kind.image.value, Kind.text.value}:
        raise ValueError(
            f"{release} embeds no pair of images and texts: an mmpretrain release or a model like CLIP is needed"
        )
    held = {name: Kind(entry["kind"]) for name, entry in modalities.items()}
    kinds = {name: kind for name, kind in held.items() if name == _first(held, kind)}
    if set(kinds.values()) != {Kind.image, Kind.text}:
        raise ValueError(f"{release} embeds images and texts, and the data holds no such pair")

    def processor(**samples: list[Any]) -> dict[str, dict[str, Tensor]]:
        return {name: space.tensors(kinds[name].value, items) for name, items in samples.items()}

    texts = {name: space.tokenizer for name, kind in kinds.items() if kind is Kind.text}
    pixels = {name: space.pixel_statistics for name, kind in kinds.items() if kind is Kind.image}
    towers = {name: space.towers[kind.value] for name, kind in kinds.items()}
    return _Parts(Towers(space.model, kinds), processor, texts, pixels, towers)


def _first(held: dict[str, Kind], kind: Kind) -> str | None:
    """The first image or text; None for other kinds."""
    return next((n for n, k in held.items() if k is kind), None) if kind in (Kind.image, Kind.text) else None


def usual_device() -> torch.device:
    """A GPU if there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _info(data: str) -> DatasetInfo | None:
    try:
        return load_info(data)
    except FileNotFoundError:
        return None


def _held(data: str, info: DatasetInfo | None) -> Mapping[str, Mapping[str, Any]]:
    """The modalities of the data, by its description or by its shards. Raises ShardError."""
    found: Mapping[str, Mapping[str, Any]] = info.modalities if info else Discovery().data(data, {})["modalities"]
    return found


def _classes(info: DatasetInfo | None) -> int | None:
    """How many labels a sample can have; None without labels."""
    if info is None or not (info.classes or info.factors):
        return None
    return len(info.classes) if info.classes else math.prod(info.factors.values())
