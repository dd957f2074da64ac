"""Which weights of a checkpoint become a release: those that were stepped, their average, or a mixture with the start.

Read tensor by tensor, as all of an export.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mmpretrain.config.averaging import AveragingConfig, Weights
from mmpretrain.distributed.world import World
from mmpretrain.engine.checkpoint_average import AveragedWeights
from mmpretrain.engine.checkpoint_weights import DelegatedWeights, StoredWeights
from mmpretrain.engine.live_weights import HEADS, MODEL
from mmpretrain.problems import UnusableError
from mmpretrain.training.interpolation import stays_as_trained
from mmpretrain.training.start_weights import StartWeights


@dataclass(frozen=True)
class Chosen:
    """kind: the weights that were stepped, or their average. mixture: the share of them beside the start; None: all."""

    kind: Weights
    mixture: float | None = None


def choose(
    settings: AveragingConfig, status: Mapping[str, Any], step: int, kind: Weights | None, mixture: float | None
) -> Chosen:
    """What is asked for; what is not said (None) is as the run released it.

    status: of the run. mixture: that a run chose holds for the step that it released. Raises UnusableError for what
    the run did not keep.
    """
    if kind is Weights.ema and settings.ema is None:
        raise UnusableError(["the run kept no average of its weights: it has no averaging.ema"])
    if mixture is not None and not settings.interpolate:
        raise UnusableError(["the run did not keep the weights that it started from: averaging.interpolate is empty"])
    if mixture is not None and not 0 <= mixture <= 1:
        raise UnusableError(
            [f"a mixture of {mixture:g} is asked for: it must lie between 0 (the start) and 1 (trained)"]
        )
    found = kind or settings.released
    told = status.get("interpolation")
    if mixture is None and told and step == status.get("released_step") and found is settings.released:
        mixture = told["alpha"]
    return Chosen(found, mixture)


def was_evaluated(chosen: Chosen, settings: AveragingConfig, status: Mapping[str, Any], step: int) -> bool:
    """Whether the run's final evaluation is of these very weights of ``step``, which it released."""
    told = status.get("interpolation")
    same = chosen.mixture == (told["alpha"] if told else None)
    return step == status.get("released_step") and chosen.kind is settings.released and same


class ChosenWeights:
    """The weights and heads of a checkpoint that are ``chosen``.

    stored: those that were stepped. checkpoint: its folder, written by ``ranks`` ranks. start: the folder of the run's
    first weights. Raises CheckpointError if one of them lacks what is needed.
    """

    def __init__(self, chosen: Chosen, stored: StoredWeights, checkpoint: Path, ranks: int, start: Path) -> None:
        self.weights, self._heads = stored, {}
        if chosen.kind is Weights.ema:
            average = AveragedWeights(stored, checkpoint, ranks)
            self.weights, self._heads = average, average.heads()
        self._mixture, self._start = chosen.mixture, None
        if chosen.mixture is not None:
            self._start = StartWeights(start, World.single())
            self.weights = MixedWeights(self.weights, self._start, chosen.mixture)

    def heads(self, trained: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The method's heads instead of those that were ``trained``."""
        found = {name: self._heads.get(name, tensor).view(tensor.shape) for name, tensor in trained.items()}
        if self._start is None or self._mixture is None:
            return found
        return {name: mixed(f"{HEADS}{name}", 0, tensor, self._start, self._mixture) for name, tensor in found.items()}


class MixedWeights(DelegatedWeights):
    """As ``stored``, of everything that trained a mixture with the start."""

    def __init__(self, stored: StoredWeights, start: StartWeights, share: float) -> None:
        super().__init__(stored)
        self._start, self._share = start, share

    def pieces(self, name: str) -> Iterator[Tensor]:
        """See :class:`StoredWeights`."""
        key, begins = f"{MODEL}{self.origin(name)}", 0
        for piece in self._stored.pieces(name):
            yield mixed(key, begins, piece, self._start, self._share)
            begins += piece.numel()


def mixed(name: str, begins: int, piece: Tensor, start: StartWeights, share: float) -> Tensor:
    """A piece of a tensor, from its number ``begins`` on, mixed with that of the start if it trained."""
    if name not in start or stays_as_trained(name):
        return piece
    first = start.part(name, begins, piece.numel()).to(piece).view(piece.shape)
    return torch.lerp(first, piece, share)
