"""Where a run's records go besides its own bookkeeping. metrics.jsonl is the first sink; another is one class more."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from mmpretrain.config.root import Config
from mmpretrain.files import sync
from mmpretrain.run_folder import RunFolder, append_line, drop_lines_after


class Tracker(Protocol):
    """A sink of records, on rank 0 alone. A record: ``step``, and numbers by name (``loss``, ``eval/test/...``).

    Calls come in this order: start, then log and flush in turn, then complete; a run that ends early skips complete.
    What a method raises ends the run.
    """

    def start(self, done: int, config: Config) -> None:
        """A run begins (``done`` = 0) or continues from its checkpoint of step ``done``: forget later records."""

    def log(self, record: Mapping[str, Any]) -> None:
        """Take one record; steps never decrease, and a step may have several."""

    def flush(self) -> None:
        """Make what was logged survive a crash: a checkpoint is about to be written."""

    def complete(self) -> None:
        """The run is complete; nothing follows."""


TrackerFactory = Callable[[RunFolder, Config], Sequence[Tracker]]


class MetricsFile:
    """One line per record in the run folder's metrics.jsonl, which the launcher and the summary read."""

    def __init__(self, folder: RunFolder) -> None:
        self.path = folder.metrics

    def start(self, done: int, config: Config) -> None:
        """Drop the lines of steps after ``done``."""
        drop_lines_after(self.path, done)

    def log(self, record: Mapping[str, Any]) -> None:
        """Append a line."""
        append_line(self.path, dict(record))

    def flush(self) -> None:
        """Bring the lines to the disk."""
        if self.path.exists():
            sync(self.path)

    def complete(self) -> None:
        """Bring the lines to the disk before the run is called complete."""
        self.flush()


def run_trackers(folder: RunFolder, config: Config) -> list[Tracker]:
    """The sinks that ``config`` asks for; called on rank 0 alone."""
    return [MetricsFile(folder)]
