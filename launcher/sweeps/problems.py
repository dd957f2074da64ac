"""The problems of many runs, each told once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from launcher.planning.plan import PlanError
from mmpretrain.words import listed


class Problems:
    """Collects what is wrong with single runs. count: of all runs of the sweep."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._first: dict[str, str] = {}
        self._runs: dict[str, list[str]] = {}

    def add(self, problems: Sequence[str], run: str, folder: Path | None = None) -> None:
        """``problems`` of a run. folder: its own, whose name makes equal problems of several runs look different."""
        for problem in dict.fromkeys(problems):
            kind = problem.replace(str(folder), "").replace(folder.name, "") if folder is not None else problem
            self._first.setdefault(kind, problem)
            self._runs.setdefault(kind, []).append(run)

    def told(self) -> list[str]:
        """A sentence for each, with the runs that it is about."""
        return [f"{problem}{self._whose(self._runs[kind])}" for kind, problem in self._first.items()]

    def stop(self) -> None:
        """Raises PlanError if there is any problem."""
        if self._first:
            raise PlanError(self.told())

    def _whose(self, runs: Sequence[str]) -> str:
        if len(runs) == self.count:
            return f" (all {self.count} runs)" if self.count > 1 else ""
        if len(runs) == 1:
            return f" ({runs[0]})"
        return f" ({len(runs)} of {self.count} runs: {listed(runs, 4, '; ')})"
