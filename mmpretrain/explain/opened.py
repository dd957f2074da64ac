"""A release and a dataset, opened together: what `mmpretrain explain` and `mmpretrain information` work on.

A release of this project, whose modalities have the names of the dataset's, or a model of transformers with a text
tower and one of images or of sounds (CLIP, SigLIP, CLAP or like them), whose towers take what is of their kind. Which
modality goes into which tower is never guessed: where more than one would fit, the user names the pair. Code that lies
in a release is never run: the classes are this installation's.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
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
from mmpretrain.problems import one_line
from mmpretrain.words import without_secrets

BATCH = 128


@dataclass(frozen=True)
class Opened:
    """model: in evaluation mode, without gradients for its parameters; modality -> tensors to an output with
    ``embeds``. processor: raw samples to these tensors. tokenizers: of the texts. pixels: statistics that the processor
    takes from images. info: of the dataset, None if nothing describes it. towers: modality of the data -> tower."""

    model: nn.Module
    processor: Processor
    tokenizers: dict[str, Any]
    pixels: dict[str, PixelStatistics]
    data: DataConfig
    info: DatasetInfo | None
    device: torch.device
    towers: dict[str, str] = field(default_factory=dict)

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
            found = embed_split(self.model, batches, World.single(), self.device)
        except BadDataError as error:
            raise ValueError(
                f"{split} of {without_secrets(str(self.data.path))} does not fit the release: {error}"
            ) from None
        if bad := [name for name, rows in found.embeds.items() if not np.isfinite(rows[found.having([name])]).all()]:
            raise ValueError(
                f"the release gives embeddings of {bad[0]!r} that are not finite: nothing can be said of them"
            )
        return found


def open_release(release: str, data: str, pair: Sequence[str] | None, device: torch.device) -> Opened:
    """``release``: folder or Hub id. ``data``: folder with shards. pair: two modalities; None: the only two that both
    have.

    Raises Unusable for a release that cannot be opened, and ValueError, naming what is at hand, for one that does not
    embed two modalities of the data, or more than two where none are named.
    """
    info, space = _info(data), open_space(release, device, pool="mean")  # its towers, whatever else opens the folder
    held = _held(data, info)
    if isinstance(space, OwnSpace):
        names = chosen_pair(release, {name: name for name in space.towers}, held, pair)
        parts = _ours(space)
    else:
        parts = _towers(release, space, held, pair)
        first, second = parts.modalities
        names = (first, second)
    modalities = {name: parts.modalities[name] for name in names}
    if info is None:  # as in training, the shards themselves say where everything lies
        modalities, _ = placed(modalities, load_index(split_folder(data, TRAIN)))
    config = DataConfig(name=info.name if info else release, path=data, modalities=modalities, classes=_classes(info))
    towers = {name: parts.towers.get(name, name) for name in names}
    return Opened(parts.model.eval(), parts.processor, parts.tokenizers, parts.pixels, config, info, device, towers)


def tower_words(towers: Mapping[str, str]) -> str:
    """Which modality of the data which tower of the release embedded."""
    return ", ".join(f"{name} by the tower {tower!r}" for name, tower in towers.items())


def chosen_pair(
    release: str, towers: Mapping[str, str], held: Mapping[str, Any], pair: Sequence[str] | None
) -> tuple[str, str]:
    """The pair that is meant. towers: modality -> tower of all that the release embeds; held: modalities of the data.

    Raises ValueError, naming what is at hand, where that is not clear.
    """
    both = [name for name in towers if name in held]
    ask = "name two with --pair FIRST,SECOND"
    if pair is None and len(both) > 2:
        raise ValueError(f"{release} embeds {', '.join(both)} of this data: {ask}")
    names = list(pair or both)
    if unknown := [name for name in names if name not in towers]:
        fit = f"{release} embeds {', '.join(towers) or 'nothing'} of this data"
        raise ValueError(f"{fit}, and not {unknown[0]!r}: {ask}")
    if lacking := [name for name in names if name not in held]:
        raise ValueError(
            f"the data has no modality {lacking[0]!r}, only {', '.join(held)}, and {release} embeds"
            f" {', '.join(towers)}: take other data, or {ask} that both have"
        )
    if len(names) != 2 or len(set(names)) != 2:
        known = f"the data holds {', '.join(held) or 'nothing'}, and {release} embeds {', '.join(towers) or 'nothing'}"
        raise ValueError(f"{known}: two modalities that both have are needed, got {', '.join(names) or 'none'}; {ask}")
    return names[0], names[1]


@dataclass(frozen=True)
class _Parts:
    """What a release gives. modalities: those that it embeds. towers: of them, where they are called otherwise."""

    model: nn.Module
    processor: Processor
    tokenizers: dict[str, Any]
    pixels: dict[str, PixelStatistics]
    modalities: dict[str, ModalityConfig]
    towers: dict[str, str] = field(default_factory=dict)


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
        """Modality -> keyword tensors of its tower, to ``embeds``.

        Raises ValueError if the tower does not take what the model's own processor makes, or gives no vectors.
        """
        return MMPretrainOutput(embeds={name: self._features(name, tensors) for name, tensors in inputs.items()})

    def _features(self, name: str, tensors: dict[str, Tensor]) -> Tensor:
        kind, title = self._kinds[name], type(self.model).__name__
        try:
            found = tower_features(self.model, kind, tensors)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # models of transformers raise whatever their layers do
            raise ValueError(
                f"{title} cannot be used here: its tower {kind.value!r} does not take what is made of {name}"
                f" ({one_line(error)})"
            ) from error
        if found.dim() != 2:
            raise ValueError(
                f"{title} cannot be used here: its tower {kind.value!r} gives {list(found.shape[1:])} numbers for each"
                f" {kind.value}, not one vector"
            )
        return found


def _towers(
    release: str, space: Space, modalities: Mapping[str, Mapping[str, Any]], pair: Sequence[str] | None
) -> _Parts:
    """Such a model, its towers on the pair of the dataset, whose ``modalities`` are these."""
    if not isinstance(space, DualSpace) or len(space.towers) != 2:
        raise ValueError(
            f"{release} embeds no pair of modalities: a release of mmpretrain, or a model of transformers with a text"
            " tower and one of images or sounds (CLIP, SigLIP, CLAP) with its processor's files, is needed"
        )
    kinds = {name: Kind(entry["kind"]) for name, entry in modalities.items() if entry["kind"] in space.towers}
    towers = {name: kind.value for name, kind in kinds.items()}
    if pair is None and set(towers.values()) != set(space.towers):
        has = ", ".join(f"{name} ({entry['kind']})" for name, entry in modalities.items())
        taken = " and ".join(f"{kind}s" for kind in space.towers)
        raise ValueError(f"{release} embeds {taken}, and the data holds no such pair: it has {has or 'nothing'}")
    names = chosen_pair(release, towers, modalities, pair)
    kinds, towers = {name: kinds[name] for name in names}, {name: towers[name] for name in names}

    def processor(**samples: list[Any]) -> dict[str, dict[str, Tensor]]:
        return {name: space.tensors(towers[name], items) for name, items in samples.items()}

    texts = {name: space.tokenizer for name, kind in kinds.items() if kind is Kind.text}
    pixels = {name: space.pixel_statistics for name, kind in kinds.items() if kind is Kind.image}
    readings = {name: space.towers[tower] for name, tower in towers.items()}
    return _Parts(Towers(space.model, kinds), processor, texts, pixels, readings, towers)


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
