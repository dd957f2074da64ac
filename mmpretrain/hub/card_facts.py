"""What a model card is told (no torch here)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mmpretrain.data.info import DatasetInfo
from mmpretrain.records import Change


@dataclass(frozen=True)
class TrainingFacts:
    """How the weights came about. samples_per_s: over all ranks. hardware: in words, ``2 x CPU (8 threads)``.
    started_from: what all their parts started from, in words; None where that was nothing. weights: what they are if
    not simply those after the last of the steps, in words. sizes: where the number of ranks changed on the way, how,
    in words; summed_hours: then, of all processes together, if all of them were measured."""

    samples: int
    steps: int
    world_size: int
    samples_per_s: float | None = None
    hardware: str | None = None
    started_from: str | None = None
    weights: str | None = None
    sizes: str | None = None
    summed_hours: float | None = None

    @property
    def hours(self) -> float | None:
        """Of all processes together, as long as steps were made; None where nobody measured."""
        if self.sizes:
            return self.summed_hours
        return self.samples / self.samples_per_s * self.world_size / 3600 if self.samples_per_s else None


@dataclass(frozen=True)
class CardFacts:
    """Everything that the card tells of a run.

    name: of the run. hyperparameters: what the method used of the config (card_parameters.py), or a whole config, as
    plain containers. evaluation: the flat content of ``evaluation.json``, on ``split``. license: of the weights, an id
    that the Hub knows (None: not chosen yet). not_held_out: why the evaluation is of no held-out data, as the end of a
    sentence; None if it is. rounded_to: the type that the weights were
    rounded to after the evaluation. changes: of the scores since the model that it was fine-tuned from. recipe: how.
    """

    name: str
    method: str
    dataset: DatasetInfo
    hyperparameters: Mapping[str, Any]
    training: TrainingFacts
    evaluation: Mapping[str, float] = field(default_factory=dict)
    split: str = "test"
    license: str | None = None
    not_held_out: str | None = None
    rounded_to: str | None = None
    changes: Sequence[Change] = ()
    recipe: str | None = None


@dataclass(frozen=True)
class ConvertedFacts:
    """The same of a model that was not trained here. origin: its name on the Hub, or that of its folder; base_model:
    its name on the Hub alone. connected_by: of several models with published projectors between them, the file of
    those."""

    name: str
    origin: str
    base_model: str | None = None
    license: str | None = None
    connected_by: str | None = None


@dataclass(frozen=True)
class AdapterFacts:
    """LoRA of one encoder. name: the modality. base: what it started from; None: random weights. trained, frozen: how
    many numbers its adapter and the encoder itself have."""

    name: str
    rank: int
    scaling: float
    base: str | None
    trained: int
    frozen: int


@dataclass(frozen=True)
class Offered:
    """What a release answers beside embeddings, and what else opens it.

    classifier: logits of classes. similarity: ``softmax`` or ``sigmoid``, how pairs are scored; None: not at all.
    fused, parts: ``fused_embeds``; ``shared_embeds`` and ``unique_embeds``. sentence_transformers: the kinds that it
    embeds by that library. native: the architecture of the folder ``native``; None: there is none. zero_shot: whether
    the pipeline for zero-shot classification of images takes it. adapters: those that lie beside, merged in the model.
    """

    classifier: bool = False
    similarity: str | None = None
    fused: bool = False
    parts: bool = False
    sentence_transformers: tuple[str, ...] = ()
    native: str | None = None
    zero_shot: bool = False
    adapters: tuple[AdapterFacts, ...] = ()
