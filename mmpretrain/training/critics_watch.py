"""Whether learned critics run away: they say more than nothing, and it is wrong (FactorCL's upper bounds).

A critic that learns from -I_NCE is at most 0 wrong on average once it has learned anything. Where that loss stays above
0 while its weights grow, it is confident about pairs that it no longer knows, and what is made of its scores bounds
nothing.
"""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import Mapping
from statistics import fmean
from typing import Any

LOSS, NORM = "critics/", "critic_norm/"
LINES = 20  # logged steps that count
LEAST_LOSS = 0.05  # nats above 0, on average
LEAST_GROWTH = 1.1  # of the norm, since the run was first looked at
logger = logging.getLogger(__name__)


class CriticsWatch:
    """Looks at what a run logs and warns once of every critic that runs away; nothing for methods without critics."""

    def __init__(self) -> None:
        self._losses: dict[str, deque[float]] = {}
        self._first_norms: dict[str, float] = {}
        self._warned: set[str] = set()

    def look(self, step: int, values: Mapping[str, float]) -> list[str]:
        """The warnings that ``values``, one step's means over the ranks, give rise to; they are logged, too."""
        found = []
        for key, norm in values.items():
            name = key.removeprefix(NORM)
            if key == name or not math.isfinite(norm) or not math.isfinite(values.get(LOSS + name, math.nan)):
                continue
            losses = self._losses.setdefault(name, deque(maxlen=LINES))
            losses.append(values[LOSS + name])
            growth = norm / max(self._first_norms.setdefault(name, norm), 1e-12)
            if name not in self._warned and len(losses) == LINES and self._away(losses, growth):
                self._warned.add(name)
                found.append(_words(step, name, fmean(losses), growth))
                logger.warning("%s", found[-1])
        return found

    def facts(self) -> dict[str, Any]:
        """What it remembers, for the manifest of a checkpoint; empty if nothing."""
        if not self._first_norms:
            return {}
        losses = {name: list(kept) for name, kept in self._losses.items()}
        return {"losses": losses, "first_norms": dict(self._first_norms), "warned": sorted(self._warned)}

    def restore(self, facts: Mapping[str, Any]) -> None:
        """Remember what :meth:`facts` told."""
        self._losses = {name: deque(kept, maxlen=LINES) for name, kept in facts["losses"].items()}
        self._first_norms, self._warned = dict(facts["first_norms"]), set(facts["warned"])

    @staticmethod
    def _away(losses: deque[float], growth: float) -> bool:
        return fmean(losses) > LEAST_LOSS and growth > LEAST_GROWTH


def _words(step: int, name: str, loss: float, growth: float) -> str:
    return (
        f"at step {step} the critic of {name} runs away: over the last {LINES} logged steps its own loss critics/{name}"
        f" was {loss:.2g} nats, above the 0 of a critic that knows nothing, while the norm of its weights grew"
        f" {growth:.2g}-fold, so that loss/{name} bounds nothing: take wider critics (method.critic_hidden), more of"
        " their steps (method.critic_steps) or a smaller optim.heads_lr"
    )
