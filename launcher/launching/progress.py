"""How far a run is, read from metrics.jsonl, and shown as a bar on a terminal or as lines in a log."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

SECONDS_BETWEEN_LINES = 10.0


@dataclass(frozen=True)
class Point:
    """Where training is. samples_per_s: over all ranks, of the last logged step."""

    step: int
    loss: float
    samples_per_s: float

    def __str__(self) -> str:
        return f"loss {self.loss:.4f}  {self.samples_per_s:,.0f} samples/s"


class MetricsTail:
    """Reads what was added to a metrics.jsonl since the last look; a resumed run may replace the file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: int | None = None
        self._offset = 0

    def latest(self) -> Point | None:
        """The newest training step among the new lines, if any."""
        try:
            found = self.path.stat()
            if found.st_ino != self._file or found.st_size < self._offset:
                self._file, self._offset = found.st_ino, 0
            with self.path.open("rb") as stream:
                stream.seek(self._offset)
                new, _, _ = stream.read().rpartition(b"\n")
        except OSError:  # not there yet, just replaced, or the network file system has a moment
            return None
        self._offset += len(new) + 1 if new else 0
        for line in reversed(new.splitlines()):
            entry = json.loads(line)
            if "loss" in entry:
                return Point(entry["step"], entry["loss"], entry["samples_per_s"])
        return None


class Bar:
    """A progress bar with the time left, loss and speed."""

    def __init__(self, console: Console, total: int, done: int) -> None:
        columns = (
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
            TextColumn("ETA"), TimeRemainingColumn(), TextColumn("{task.fields[measures]}"),
        )  # fmt: skip
        self._progress = Progress(*columns, console=console)
        self._task = self._progress.add_task("training", total=total, completed=done, measures="")

    def show(self, point: Point) -> None:
        """Move on to ``point``."""
        self._progress.update(self._task, completed=point.step, measures=str(point))

    def say(self, text: str) -> None:
        """Print a line above the bar."""
        self._progress.console.print(text, markup=False, highlight=False)

    def __enter__(self) -> Bar:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()


class Lines:
    """A line now and then, for output that goes to a file."""

    def __init__(self, console: Console, total: int) -> None:
        self._console = console
        self._total = total
        self._first: tuple[float, int] | None = None
        self._last = 0.0

    def show(self, point: Point) -> None:
        """Print ``point``, unless a line was printed just before; the last step is always printed."""
        now = time.monotonic()
        if now - self._last < SECONDS_BETWEEN_LINES and point.step < self._total:
            return
        self._last = now
        self.say(f"step {point.step}/{self._total}  {point}{self._time_left(now, point.step)}")

    def _time_left(self, now: float, step: int) -> str:
        """From the pace since the first step that was seen: starting up is left out."""
        if self._first is None or step < self._first[1]:  # a run that goes on may begin before what was logged
            self._first = (now, step)
        began, first = self._first
        if step == first or step >= self._total:
            return ""
        return f"  ETA {timedelta(seconds=round((self._total - step) * (now - began) / (step - first)))}"

    def say(self, text: str) -> None:
        """Print a line."""
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def __enter__(self) -> Lines:
        return self

    def __exit__(self, *error: object) -> None:
        return None


def display(console: Console, total: int, done: int) -> Bar | Lines:
    """A bar on a terminal, lines elsewhere. total: steps of the run; done: steps before this start."""
    return Bar(console, total, done) if console.is_terminal else Lines(console, total)
