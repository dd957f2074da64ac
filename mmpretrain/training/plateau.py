"""How often a run has lowered its learning rate because its score on the validation split no longer rose."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mmpretrain.config.engine import OptimConfig, Schedule
from mmpretrain.training.best import Best


@dataclass(frozen=True)
class Plateau:
    """drops: so many times. since: the step of the last one, from which measurements are counted anew."""

    drops: int = 0
    since: int = 0

    def after(self, best: Best | None, config: OptimConfig, done: int, every_steps: int | None) -> Plateau:
        """What holds after the measurement at step ``done``, which ``best`` takes into account."""
        if config.schedule is not Schedule.plateau or best is None or not every_steps:
            return self
        waited = done // every_steps - max(best.step, self.since) // every_steps
        return Plateau(self.drops + 1, done) if waited >= config.plateau_patience else self


def known_plateau(manifest: Mapping[str, Any] | None) -> Plateau:
    """What a checkpoint's manifest says; no drop where it says nothing."""
    return Plateau(**manifest["plateau"]) if manifest and manifest.get("plateau") else Plateau()
