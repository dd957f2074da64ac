"""Config of what happens to weights over a run: averages, and interpolation with the start (no torch here)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

# Keys of DeepSpeed's ``zero_optimization`` that move weights to where they cannot be averaged.
_ELSEWHERE = ("offload_param", "zero_hpz_partition_size", "mics_shard_size", "zero_quantized_weights")


class Weights(StrEnum):
    """Which weights of a run are meant."""

    raw = "raw"
    """Those that the optimizer steps."""

    ema = "ema"
    """Their exponential moving average."""


@dataclass
class AveragingConfig:
    """Averages of the weights, and interpolation of what was trained with what it started from."""

    ema: float | None = None
    """Decay of an exponential moving average of the weights, such as 0.999: after each step, average = decay * average
    + (1 - decay) * weights. From 0 to below 1; null: no average is kept."""

    warmup: bool = True
    """Whether the decay after t steps is at most (1 + t) / (10 + t), so that the average soon forgets the start of
    training."""

    release: Weights | None = None
    """Which weights are evaluated, while training as well, and released. null: ``ema`` where ``averaging.ema`` is set,
    else ``raw``."""

    interpolate: list[float] = field(default_factory=list)
    """Shares of the trained weights, from 0 (the start) to 1, such as ``[0, 0.25, 0.5, 0.75, 1]`` (WiSE-FT). At the end
    of the run each mixture with the weights from before the first step is measured by ``evaluation.best.score``, and
    the best one is released; of equals the one nearest to the start. Empty: what was trained is released."""

    @property
    def released(self) -> Weights:
        """Which weights are evaluated and released."""
        return self.release or (Weights.raw if self.ema is None else Weights.ema)

    def problems(self) -> list[str]:
        """What is wrong with this section, one sentence each."""
        found = []
        if self.ema is not None and not 0 <= self.ema < 1:
            found.append(f"averaging.ema is {self.ema}: a number from 0 to below 1 is needed, or null for no average")
        if self.release is Weights.ema and self.ema is None:
            found.append("averaging.release is ema, and no average is kept: set averaging.ema, to 0.999 for example")
        if not self.warmup and self.ema is None:
            found.append("averaging.warmup=false has no effect without an average: set averaging.ema, or leave it out")
        outside = [share for share in self.interpolate if not 0 <= share <= 1]
        if outside:
            found.append(f"averaging.interpolate has {outside[0]}: shares lie between 0 (the start) and 1 (trained)")
        twice = [share for share in self.interpolate if self.interpolate.count(share) > 1]
        if twice:
            found.append(f"averaging.interpolate has {twice[0]} twice")
        return found

    def problems_against(self, score: str | None, deepspeed: Mapping[str, Any]) -> list[str]:
        """What stands against this section elsewhere. score: ``evaluation.best.score``. deepspeed: further keys of its
        config."""
        found = []
        if self.interpolate and not score:
            found.append(
                "averaging.interpolate chooses by evaluation.best.score, which is null: set it, to"
                " retrieval/image->caption/recall@1 for example"
            )
        if not self.interpolate and self.ema is None:
            return found
        zero = deepspeed.get("zero_optimization") or {}
        away = [key for key in _ELSEWHERE if zero.get(key)]
        away += [key for key in ("offload_optimizer",) if (zero.get(key) or {}).get("device") == "nvme"]
        return found + [
            f"engine.deepspeed.zero_optimization.{key} moves weights to where averaging cannot reach them: leave it"
            " out, or averaging.ema and averaging.interpolate"
            for key in away
        ]
