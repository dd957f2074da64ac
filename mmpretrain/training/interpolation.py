"""Interpolation with the start (WiSE-FT; Wortsman et al. 2022, arXiv 2109.01903): which share of the training to keep.

    mixture(share) = (1 - share) * start + share * trained

of all parameters that train, running statistics, and the heads that ship (temperature, bias). Every share that
``averaging.interpolate`` lists is put into the live engine and measured on the validation split; the best one stays
there. Of adapters (LoRA), whose product is what is added to a weight, one factor is kept as trained and the other one
mixed: it starts at zero, so that the share is that of the merged weights.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mmpretrain.config.evaluation import BestConfig
from mmpretrain.engine.engine import Engine
from mmpretrain.engine.live_weights import Fragment
from mmpretrain.training.best import beats
from mmpretrain.training.start_weights import StartWeights, float_buffers

_KEPT = re.compile(r"\.lora_(embedding_)?A(\.|$)")
_FROM_ZERO = re.compile(r"\.lora_(embedding_)?B(\.|$)")


@dataclass(frozen=True)
class Mixed:
    """alpha: the share that was chosen. scores: of every share, by ``score`` on ``split``."""

    alpha: float
    score: str
    split: str
    scores: dict[float, float]

    def facts(self) -> dict[str, Any]:
        """For the status of a run."""
        scores = {f"{alpha:g}": value for alpha, value in self.scores.items()}
        return {"alpha": self.alpha, "score": self.score, "split": self.split, "scores": scores}


class Mixtures:
    """Puts mixtures of the start and of the weights that the engine has now into the engine."""

    def __init__(self, engine: Engine, start: StartWeights) -> None:
        """Raises ValueError for adapters that do not start at zero, of which no mixture is one of merged weights."""
        self._engine, self._start = engine, start
        self._trained: dict[str, Tensor] = {name: t.clone() for name, (t, _) in self._live().items()}
        self._refuse_adapters()

    @torch.no_grad()
    def put(self, alpha: float) -> None:
        """The mixture with this share of the training; a collective."""
        for name, (numbers, start) in self._live().items():
            if not stays_as_trained(name):
                first = self._start.part(name, start, numbers.numel()).to(numbers)
                numbers.copy_(torch.lerp(first, self._trained[name], alpha))
        self._engine.live.refresh()

    def _live(self) -> dict[str, Fragment]:
        """This rank's numbers and where they begin: fragments of parameters, and whole buffers."""
        method = self._engine.method
        buffers = float_buffers(method.model, method.heads)
        return self._engine.live.fragments() | {name: Fragment(b.view(-1), 0) for name, b in buffers.items()}

    def _refuse_adapters(self) -> None:
        wrong = ""
        for name, (numbers, start) in self._live().items():
            scaled = "lora_magnitude" in name
            if scaled or (_FROM_ZERO.search(name) and self._start.part(name, start, numbers.numel()).any()):
                wrong = name
        if self._engine.world.max_flag(bool(wrong)):
            raise ValueError(
                f"averaging.interpolate: the adapters do not start at zero ({wrong or 'on another rank'}), so that no"
                " mixture of them is one of the merged weights: leave averaging.interpolate out"
            )


def stays_as_trained(name: str) -> bool:
    """Whether a parameter is the factor of an adapter that is not mixed."""
    return bool(_KEPT.search(name))


def interpolated(mixtures: Mixtures, alphas: list[float], settings: BestConfig, measure: Callable[[], float]) -> Mixed:
    """Measure every share, and leave the best in the engine; of equals the smallest. The same on all ranks.

    measure: the score of what the engine holds, the same on all ranks.
    """
    scores: dict[float, float] = {}
    best: float | None = None
    for alpha in sorted(alphas):
        mixtures.put(alpha)
        scores[alpha] = measure()
        if best is None or beats(scores[alpha], scores[best], settings):
            best = alpha
    assert best is not None, "there is at least one share"
    mixtures.put(best)
    return Mixed(best, str(settings.score), settings.split, scores)
