"""What the plan of a sweep is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from launcher.planning.plan import RunPlan
from launcher.planning.resources import Resources
from mmpretrain.config.root import Config


class Fate(StrEnum):
    """What a submission does with one run of a sweep."""

    start = "start"
    """It is started, or goes on."""

    complete = "complete"
    """It is there already, here or under another name."""

    living = "living"
    """Its job is in the queue or runs, and is left alone."""

    double = "double"
    """Another run of this sweep has the same settings."""


@dataclass(frozen=True)
class Composed:
    """A config, and what its composition found worth a note."""

    config: Config
    notes: tuple[str, ...] = ()


Composer = Callable[[Sequence[str], Path | None], Composed]
"""From a run's tokens to its config; the folder is that of a run that is there and may go on. Raises PlanError."""


@dataclass(frozen=True)
class Element:
    """One run of a sweep. own: the tokens that are its own. values: what it sets of the keys that are swept. folder:
    absolute, of the run that has these settings. why: in words, where nothing is started. plan: of what is started."""

    name: str
    own: tuple[str, ...]
    values: Mapping[str, Any]
    folder: Path
    fate: Fate = Fate.start
    why: str = ""
    plan: RunPlan | None = None


@dataclass(frozen=True)
class SweepPlan:
    """A sweep. folder: absolute. shared: tokens of all runs. notes: of single runs, those that several share once."""

    name: str
    folder: Path
    shared: tuple[str, ...]
    elements: tuple[Element, ...]
    resources: Resources
    command: str
    notes: tuple[str, ...] = ()
    at_once: int | None = None

    @property
    def starting(self) -> list[RunPlan]:
        """The plans of the runs that are started."""
        return [element.plan for element in self.elements if element.plan is not None]
