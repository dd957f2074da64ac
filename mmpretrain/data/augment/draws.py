"""The random numbers of one modality in one view. Shapes: b samples."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mmpretrain.config.augment import AugmentConfig, Choose
from mmpretrain.config.kind import KINDS
from mmpretrain.data.random import normal, uniform
from mmpretrain.data.step import Step

Tensors = dict[str, Tensor]  # keyword of an encoder -> [b, ...]
_COLUMNS = tuple(dict.fromkeys(name for row in KINDS.values() for name in row.operations))


@dataclass(frozen=True)
class Draws:
    """Draws of b samples; what a sample gets depends on the run's seed, its position, view and modality alone.

    positions: int64 [b], in the stream. done: operations that have been done already, whose coins count all the same.
    """

    step: Step
    view: str
    modality: str
    positions: Tensor
    done: frozenset[str] = frozenset()

    def uniform(self, use: str, *shape: int) -> Tensor:
        """Numbers from [0, 1): float32 [b, *shape]. use: what for; each use has numbers of its own."""
        return uniform(self._seed(use), self.positions, shape)

    def normal(self, use: str, *shape: int) -> Tensor:
        """Standard normal numbers: float32 [b, *shape]."""
        return normal(self._seed(use), self.positions, shape)

    def coins(self, config: AugmentConfig) -> dict[str, Tensor]:
        """Operation that is set -> bool [b], whether each sample gets it."""
        operations = config.operations
        if config.choose is Choose.one:
            pick = (self.uniform("operation") * (len(operations) + 1)).long()  # the last number is none of them
            return {name: pick == number for number, name in enumerate(operations)}
        draws = self.uniform("operations", len(_COLUMNS))
        return {name: draws[:, _COLUMNS.index(name)] < probability for name, probability in operations.items()}

    def _seed(self, use: str) -> int:
        return self.step.sub_seed(0, "augment", self.view, self.modality, use)


def rows(coin: Tensor, like: Tensor) -> Tensor:
    """bool [b] with as many further dimensions as ``like`` [b, ...] has."""
    return coin.reshape(-1, *(1,) * (like.dim() - 1))


def within(draws: Tensor, limits: list[float]) -> Tensor:
    """Uniform draws of [0, 1) stretched to [least, most)."""
    return torch.lerp(torch.full_like(draws, limits[0]), torch.full_like(draws, limits[1]), draws)
