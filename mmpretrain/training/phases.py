"""What this rank is doing, for the thread that watches it and for whoever asks from outside (no torch here).

A phase is entered by ``with phase("save"):``, and ``reached(step)`` says that a step is done. Both count as progress.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

START, STEP = "start", "step"
# How many times ``engine.hang_s`` a phase may show no sign of life; what is not named here has it once.
PATIENCE = {START: 2.0, "evaluate": 2.0, "save": 2.0, "release": 3.0, "fetch": 10.0}


@dataclass(frozen=True)
class Position:
    """Where a rank stands. step: done. count: of all that was entered, left or done since the process began."""

    phase: str = START
    step: int = 0
    count: int = 0

    def __str__(self) -> str:
        return f"{self.phase}, {f'after step {self.step}' if self.step else 'before its first step'}"


_now = Position()


def position() -> Position:
    """Where this process's rank stands now; any thread may ask."""
    return _now


def reached(step: int) -> None:
    """``step`` steps are done; the next one begins."""
    _move(replace(_now, phase=STEP, step=step))


@contextmanager
def phase(name: str) -> Iterator[None]:
    """Be in the phase ``name``, and afterwards again in the one before.

    After an error the phase stays: it is where the error happened.
    """
    before = _now.phase
    _move(replace(_now, phase=name))
    yield
    _move(replace(_now, phase=before))


def _move(to: Position) -> None:
    global _now
    _now = replace(to, count=_now.count + 1)
