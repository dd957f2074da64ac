"""The files of ``runs/NAME/`` and how they are written (no torch here: the launcher reads them too)."""

from __future__ import annotations

import errno
import fcntl
import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum, StrEnum
from pathlib import Path
from typing import Any

from mmpretrain.endings import FULL, Ending
from mmpretrain.files import overwrite_text, replace_text


class State(StrEnum):
    """Where a run stands."""

    queued = "queued"
    running = "running"
    completed = "completed"
    failed = "failed"
    preempted = "preempted"


ENDINGS = {State.completed: Ending.completed, State.failed: Ending.failed, State.preempted: Ending.preempted}
"""How a run in this state has ended, where nothing else is said; the other states are no ends."""


class Busy(Enum):
    """What to do about a lock that another process holds."""

    wait = "wait"
    fail = "fail"


class DamagedFileError(ValueError):
    """A JSON file of a run folder cannot be read; the message names it and the fix."""


@dataclass(frozen=True)
class RunFolder:
    """Paths inside a run's folder."""

    path: Path

    @property
    def config(self) -> Path:
        """The resolved config; it starts the same run again."""
        return self.path / "config.yaml"

    @property
    def plan(self) -> Path:
        """The launcher's plan."""
        return self.path / "plan.json"

    @property
    def metrics(self) -> Path:
        """One JSON line per logged step and per evaluation."""
        return self.path / "metrics.jsonl"

    @property
    def consumed(self) -> Path:
        """One JSON line per step: the keys that the step learned from."""
        return self.path / "consumed.jsonl"

    @property
    def quarantine(self) -> Path:
        """One JSON line per sample that could not be read."""
        return self.path / "quarantine.jsonl"

    @property
    def checkpoints(self) -> Path:
        """Checkpoints by step."""
        return self.path / "checkpoints"

    @property
    def evaluation(self) -> Path:
        """Metrics of the final evaluation."""
        return self.path / "evaluation.json"

    @property
    def evaluation_before(self) -> Path:
        """The same metrics of what the run started from, where it was asked for."""
        return self.path / "evaluation_before.json"

    @property
    def outcomes_before(self) -> Path:
        """The outcomes of single samples behind them."""
        return self.path / "evaluation_before.npz"

    @property
    def changes(self) -> Path:
        """Both side by side, with intervals of the differences."""
        return self.path / "changes.json"

    @property
    def start_weights(self) -> Path:
        """The weights that the run started from, of runs that mix them with what was trained."""
        return self.path / "start_weights"

    @property
    def parts(self) -> Path:
        """What a release holds beside weights, as of the run's last start."""
        return self.path / "parts"

    @property
    def release(self) -> Path:
        """The folder that AutoModel opens."""
        return self.path / "release"

    def status(self) -> dict[str, Any]:
        """The content of status.json; empty when the run was never started. Raises DamagedFileError."""
        return read_json(self.path / "status.json")

    def update_status(self, unless: State | None = None, **changes: Any) -> None:
        """Replace some fields of status.json, but none while its state is ``unless``; ``state`` takes a State.

        A state comes with its ``ending``, an Ending, unless another one is given. Launcher and ranks do this at the
        same time: no one's fields are lost. Raises DamagedFileError, OSError.
        """
        if "state" in changes:
            changes = {"ending": ENDINGS.get(changes["state"]), **changes}
        if isinstance(ending := changes.get("ending"), Ending):
            changes["ending"] = ending.name
        with locked(self.path / ".status.lock", Busy.wait):
            before = self.status()
            if unless is None or before.get("state") != unless.value:
                self._write_status(json.dumps({**before, **changes}, default=lambda value: value.value))

    def _write_status(self, text: str) -> None:
        path = self.path / "status.json"
        try:
            replace_text(path, text)
        except OSError as error:
            if error.errno not in FULL or not path.exists():
                raise
            overwrite_text(path, text)  # the last words of a run whose disk is full fit where earlier ones stood


@contextmanager
def locked(path: Path, busy: Busy) -> Iterator[None]:
    """Hold the lock of the file ``path`` (made if needed, never removed) against other processes.

    Raises BlockingIOError when another one holds it and ``busy`` is fail.
    """
    with path.open("a") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | (fcntl.LOCK_NB if busy is Busy.fail else 0))
        except OSError as error:
            # Some network file systems are mounted without locks, and runs must be possible there too.
            if error.errno not in (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP):
                raise
        yield


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file; empty without the file. Raises DamagedFileError."""
    try:
        content = json.loads(path.read_text())
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise DamagedFileError(_damage(path, str(error))) from error
    if not isinstance(content, dict):
        raise DamagedFileError(_damage(path, "not a mapping"))
    return content


def _damage(path: Path, why: str) -> str:
    return f"{path} is damaged ({why}): restore it, or delete it if no job of this run is alive"


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The JSON objects of a .jsonl file, up to a line that a kill or a crash of the machine left damaged."""
    if path.exists():
        for line in path.read_text(errors="replace").splitlines(keepends=True):
            try:
                if line.endswith("\n"):
                    yield json.loads(line)
            except ValueError:
                return


def append_line(path: Path, record: dict[str, Any]) -> None:
    """Add one JSON line; numbers that are nan or infinite, which JSON does not have, become null."""
    finite = {
        key: None if isinstance(value, float) and not math.isfinite(value) else value for key, value in record.items()
    }
    with path.open("a") as stream:
        stream.write(json.dumps(finite) + "\n")


def drop_lines_after(path: Path, last: int, key: str = "step") -> None:
    """Keep the lines with ``key`` up to ``last``: what a killed run wrote beyond its checkpoint is done again."""
    if path.exists():
        kept = [json.dumps(line) + "\n" for line in read_lines(path) if line[key] <= last]
        replace_text(path, "".join(kept))
