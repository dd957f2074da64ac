"""What a pretraining method is: encode sees samples, objective sees the world.

    batch = method.prepare(batch, step)               # views and mixing, per rank, before any micro-batching
    features = method.encode(model, batch)            # the model only, sample by sample
    losses = method.objective(features, step, world)  # the only place where ranks see one another
    ...backward, optimizer steps...
    method.clamp_()

Before the first step and after the last one a method may look at data at large: ``initialize``, ``conclude``.

A method with ``critics`` plays against them: they have an optimizer and steps of their own (``refinement``), each by
``method.refine(features, step, world)`` on features without graph, and are held fixed in ``objective``.

Shape legend: b samples of this rank, d width of an embedding, C classes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from mmpretrain.config.root import Config
from mmpretrain.data.augment import Augmenter
from mmpretrain.data.batch import NEGATIVES, PRESENT, Batch, Mixing
from mmpretrain.data.step import Step
from mmpretrain.distributed.world import World
from mmpretrain.losses.contrastive import Pair, PairLoss, contrastive
from mmpretrain.models.modeling_mmpretrain import MMPretrainModel
from mmpretrain.models.processing_mmpretrain import MMPretrainProcessor

Embeds = dict[str, Tensor]  # modality -> [b, d]
Once = tuple[Batch, Tensor]  # a batch, and bool [b]: which of its rows are samples, and do not only fill it up


@dataclass(frozen=True)
class Features:
    """What the model makes of one batch, and what the batch says about its samples.

    embeds: modality -> [b, d], not normalized. views: view name -> modality -> [b, d]. logits: [b, C] or
    None. fused: view name -> [b, d], all modalities together. labels: as in :class:`Batch`. sample_ids, positions:
    int64 [b]. mixing, present, copies: as in :class:`Batch`. negatives: modality -> [b, count, d], embeddings of hard
    negatives, and negatives_present, bool [b, count], which of them there are.
    """

    embeds: Embeds
    labels: Tensor | None
    sample_ids: Tensor
    positions: Tensor
    logits: Tensor | None = None
    views: dict[str, Embeds] = field(default_factory=dict)
    fused: Embeds = field(default_factory=dict)
    mixing: dict[str, Mixing] = field(default_factory=dict)
    present: dict[str, Tensor] = field(default_factory=dict)
    negatives: Embeds = field(default_factory=dict)
    negatives_present: Embeds = field(default_factory=dict)
    copies: bool = True

    @classmethod
    def of(
        cls,
        batch: Batch,
        embeds: Embeds,
        logits: Tensor | None = None,
        views: dict[str, Embeds] | None = None,
        fused: Embeds | None = None,
        negatives: Embeds | None = None,
    ) -> Features:
        """The model's outputs together with what their batch says of its samples."""
        return cls(
            embeds=embeds,
            logits=logits,
            views=views or {},
            fused=fused or {},
            labels=batch.labels,
            sample_ids=batch.sample_ids,
            positions=batch.positions,
            mixing=batch.mixing,
            present=batch.present,
            copies=batch.copies,
            negatives=negatives or {},
            negatives_present={name: batch.views[NEGATIVES][name][PRESENT] for name in negatives or {}},
        )

    @property
    def ids(self) -> Tensor | None:
        """``sample_ids`` for losses that leave copies of a sample out; None where there are none."""
        return self.sample_ids if self.copies else None

    @property
    def tensors(self) -> list[Tensor]:
        """All that the model computed, [b, ...] each, always in the same order."""
        views = [embed for view in self.views.values() for embed in view.values()]
        logits = [] if self.logits is None else [self.logits]
        return [*self.embeds.values(), *views, *self.fused.values(), *logits, *self.negatives.values()]

    def with_tensors(self, tensors: Sequence[Tensor], batch: Batch) -> Features:
        """``tensors`` in the place of :attr:`tensors`, as features of ``batch``: the parts' rows put together."""
        supply = iter(tensors)
        return Features.of(
            batch,
            embeds={name: next(supply) for name in self.embeds},
            views={view: {name: next(supply) for name in embeds} for view, embeds in self.views.items()},
            fused={view: next(supply) for view in self.fused},
            logits=None if self.logits is None else next(supply),
            negatives={name: next(supply) for name in self.negatives},
        )


@dataclass(frozen=True)
class Losses:
    """Named scalar losses of this rank (means over its rows), their weights, and detached diagnostics.

    weights: 1 unless given. The names are the same on all ranks in the same step, so that a mean over the
    ranks is one collective.
    """

    terms: dict[str, Tensor]
    weights: dict[str, float] = field(default_factory=dict)
    diagnostics: dict[str, Tensor] = field(default_factory=dict)

    @property
    def total(self) -> Tensor:
        """The weighted sum of all terms."""
        return torch.stack([self.weights.get(name, 1.0) * term for name, term in self.terms.items()]).sum()


class RefineOn(Enum):
    """The batch that critics learn from between two steps of everything else.

    next: the one that the next of these steps is about to use, whose features serve both. same: the one that was just
    used, encoded again by the updated model. previous: the one that was just used, by the features that it had.
    """

    next = "next"
    same = "same"
    previous = "previous"


@dataclass(frozen=True)
class Refinement:
    """The critics' own steps: how many between two of everything else, on which batch."""

    times: int = 1
    on: RefineOn = RefineOn.next


@dataclass(frozen=True)
class Shipped:
    """What a release holds. state: the whole weights of ``model`` by name, which itself may be without them."""

    model: MMPretrainModel
    state: Mapping[str, Tensor]
    processor: MMPretrainProcessor


class Method(ABC):
    """One pretraining method.

    model: the transformers model that ships, and the only thing that DeepSpeed wraps. heads: float32 modules
    that only training needs (temperature, unimodal heads, critics), replicated outside ZeRO; may be empty. critics:
    likewise, with steps of their own as ``refinement`` says.

    similarity: the form of the similarity that is learned and ships (``softmax``, ``sigmoid``), and similarity_heads:
    each of its numbers in a release -> the parameter of ``heads`` that it is. measuring: whether diagnostics of this
    step are wanted, which only cost time where nobody reads them; those that are not made are nan.
    """

    similarity: ClassVar[str | None] = None
    similarity_heads: ClassVar[Mapping[str, str]] = {}

    def __init__(self, config: Config, model: MMPretrainModel, augmenter: Augmenter | None = None) -> None:
        """config: the whole resolved config. model: built for the same modalities as ``config.data``.

        augmenter: the run's; None for a method that is only looked at and never prepares a batch.
        """
        self.model = model
        self._augmenter = augmenter
        self.heads = nn.ModuleDict()
        self.critics = nn.ModuleDict()
        self.refinement = Refinement()
        self.modalities: Sequence[str] = tuple(config.data.modalities)
        self.contrast = config.objective
        self.measuring = True

    @staticmethod
    def release_problems(config: Config) -> list[str]:
        """What stands against the releases that the method's own settings name, one sentence each."""
        return []

    @property
    def of_classes(self) -> Collection[str]:
        """Names of the heads and critics that mean nothing where labels have other numbers."""
        return ()

    @property
    def augmenter(self) -> Augmenter:
        """What augments batches; there is one per run."""
        assert self._augmenter is not None, "a method without an augmenter prepares no batches"
        return self._augmenter

    def initialize(self, batches: Callable[[int], Iterable[Batch]], world: World) -> None:  # noqa: B027 - as clamp_
        """Look at data before the first step; called at a run's first start, before DeepSpeed takes the weights over.

        batches: how many samples -> this rank's batches of about so many of the stream's first; nothing is read unless
        it is called, and all ranks get equally many batches. What is set must be the same on all ranks.
        """

    def taken_over(self, parts: Collection[str]) -> bool:
        """Whether what ``initialize`` sets has come from the start of another run, so that it is not to be called.

        parts: what was taken over of the model, as ``encoders.image`` or ``fusion``. The model then is as in training,
        even where it came out of a release.
        """
        return False

    def conclude(self, model: Any, batches: Iterable[Once], world: World) -> None:  # noqa: B027 - as clamp_
        """Look at data after the last step, and set buffers of ``self.model`` that ship; called before the evaluation.

        model: what to run (see :meth:`encode`). batches: this rank's share of the training split; nothing is read
        unless they are asked for. What is set must be the same on all ranks.
        """

    def prepare(self, batch: Batch, step: Step) -> Batch:
        """``batch`` with what the method adds to it (views, mixing); random only through ``step``."""
        return batch

    @abstractmethod
    def encode(self, model: Any, batch: Batch) -> Features:
        """Run ``model`` (``self.model`` or the engine around it) sample by sample; no heads, no ranks."""

    @abstractmethod
    def objective(self, features: Features, step: Step, world: World) -> Losses:
        """The losses of this rank's rows, by heads and loss functions only; ``world`` is the other ranks."""

    def refine(self, features: Features, step: Step, world: World) -> Losses:
        """The losses of ``critics``, for a step of theirs; ``features`` have no graph. Only called if there are any."""
        raise NotImplementedError

    def contrastive(
        self, pairs: Sequence[Pair], features: Features, *, scale: Tensor | float, world: World
    ) -> list[PairLoss]:
        """Losses of pairs of rows of ``features``, as the config's objective section wants them computed."""
        return contrastive(
            pairs, scale=scale, world=world, settings=self.contrast, sample_ids=features.ids, metrics=self.measuring
        )

    def ship(self, state: Mapping[str, Tensor], processor: MMPretrainProcessor) -> Shipped:
        """What is released of a run that is complete; called on rank 0 alone.

        state: the whole weights of ``model``. processor: the run's.
        """
        return Shipped(self.model, state, processor)

    def clamp_(self) -> None:  # noqa: B027 - a hook that most methods leave alone
        """Bring head parameters back into their allowed range; called after every optimizer step."""


def require_equal_widths(model: MMPretrainModel) -> None:
    """Raises ValueError when the model's modalities have embeddings of different widths."""
    if len(set(model.embed_sizes.values())) > 1:
        sizes = ", ".join(f"{name} {width}" for name, width in model.embed_sizes.items())
        raise ValueError(
            f"embeddings of different widths cannot be compared ({sizes}): set model.embed_dim to project them"
        )
