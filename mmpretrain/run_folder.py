"""The files of ``runs/NAME/`` and how they are written (no torch here: the launcher reads them too)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from mmpretrain.files import replace_text


class State(StrEnum):
    """Where a run stands."""

    queued = "queued"
    running = "running"
    completed = "completed"
    failed = "failed"
    preempted = "preempted"


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
    def release(self) -> Path:
        """The folder that AutoModel opens."""
        return self.path / "release"

    def status(self) -> dict[str, Any]:
        """The content of status.json; empty when the run was never started."""
        path = self.path / "status.json"
        return json.loads(path.read_text()) if path.exists() else {}

    def update_status(self, **changes: Any) -> None:
        """Replace some fields of status.json atomically; ``state`` takes a State."""
        status = {**self.status(), **changes}
        replace_text(self.path / "status.json", json.dumps(status, default=lambda value: value.value))


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
    """Add one JSON line."""
    with path.open("a") as stream:
        stream.write(json.dumps(record) + "\n")


def drop_lines_after(path: Path, last: int, key: str = "step") -> None:
    """Keep the lines with ``key`` up to ``last``: what a killed run wrote beyond its checkpoint is done again."""
    if path.exists():
        kept = [json.dumps(line) + "\n" for line in read_lines(path) if line[key] <= last]
        replace_text(path, "".join(kept))
