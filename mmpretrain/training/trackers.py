"""Where a run's records go besides its own bookkeeping: metrics.jsonl, and the trackers that ``tracking`` names."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from mmpretrain.config.root import Config
from mmpretrain.files import sync
from mmpretrain.run_folder import RunFolder, append_line, drop_lines_after
from mmpretrain.training.background import Background


class Tracker(Protocol):
    """A sink of records, on rank 0 alone. A record: ``step``, and numbers by name (``loss``, ``eval/test/...``).

    Calls come in this order: start, then log, picture and flush in turn, then conclude and complete; a run that ends
    early skips the last two. What a method raises ends the run, unless the sink is behind a Background.
    """

    def start(self, done: int, config: Config) -> None:
        """A run begins (``done`` = 0) or continues from its checkpoint of step ``done``: forget later records."""

    def log(self, record: Mapping[str, Any]) -> None:
        """Take one record; steps never decrease, and a step may have several."""

    def picture(self, step: int, name: str, png: bytes) -> None:
        """Take a picture, an encoded PNG."""

    def flush(self) -> None:
        """Make what was logged survive a crash: a checkpoint is about to be written."""

    def conclude(self, step: int, scores: Mapping[str, float]) -> None:
        """Take the final evaluation's flat results, which evaluation.json holds as well."""

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

    def picture(self, step: int, name: str, png: bytes) -> None:
        """Pictures are for others."""

    def flush(self) -> None:
        """Bring the lines to the disk."""
        if self.path.exists():
            sync(self.path)

    def conclude(self, step: int, scores: Mapping[str, float]) -> None:
        """The results are in evaluation.json."""

    def complete(self) -> None:
        """Bring the lines to the disk before the run is called complete."""
        self.flush()


def run_trackers(folder: RunFolder, config: Config) -> list[Tracker]:
    """The sinks that ``config`` asks for; called on rank 0 alone. Their packages are imported when they start."""
    return [MetricsFile(folder), *(Background(name, _makers()[name](folder)) for name in config.tracking.wanted)]


def _makers() -> dict[str, Callable[[RunFolder], Callable[[], Tracker]]]:
    """Name of a tracker -> for a run folder, what makes it."""
    return {"tensorboard": _tensorboard, "wandb": _wandb, "trackio": _trackio}


def _tensorboard(folder: RunFolder) -> Callable[[], Tracker]:
    def make() -> Tracker:
        from mmpretrain.training.tensorboard_tracker import TensorBoard

        return TensorBoard(folder.path / "tensorboard")

    return make


def _wandb(folder: RunFolder) -> Callable[[], Tracker]:
    def make() -> Tracker:
        from mmpretrain.training.wandb_tracker import Wandb

        return Wandb(folder.path)

    return make


def _trackio(folder: RunFolder) -> Callable[[], Tracker]:
    def make() -> Tracker:
        from mmpretrain.training.trackio_tracker import Trackio

        return Trackio(folder.path)

    return make
