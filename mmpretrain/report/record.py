"""Everything that the page wants of a run, read from its folder; what is missing or damaged becomes a note."""

from __future__ import annotations

import time
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

import yaml

from mmpretrain.engine.checkpoint_files import steps as checkpoint_steps
from mmpretrain.records import Change, read_changes
from mmpretrain.report.attempts import Attempt, read_attempts, read_quarantine
from mmpretrain.report.metrics import Column, Metrics, read_metrics
from mmpretrain.run_folder import RunFolder, read_json
from mmpretrain.summary.grid_file import GRID_FILE, MAP_FILE, Grid, load_grid
from mmpretrain.words import without_secrets

T = TypeVar("T")
# What readers of JSON, YAML and archives raise where bytes are not what they were.
DAMAGE: tuple[type[Exception], ...] = (
    ValueError,
    KeyError,
    TypeError,
    EOFError,
    RecursionError,
    NotImplementedError,
    zipfile.BadZipFile,
    zlib.error,
    yaml.YAMLError,
)


@dataclass
class Record:
    """A run. name: unique among those of a page. before: scores of what training started from, empty if not measured.

    changes: the same scores side by side, by name, with intervals of the differences. map: the content of
    embeddings_map.json. facts: what parts/ says of data and hardware.
    """

    name: str
    path: Path
    status: dict[str, Any]
    config: dict[str, Any]
    plan: dict[str, Any]
    metrics: Metrics
    scores: dict[str, float]
    before: dict[str, float]
    changes: dict[str, Change]
    grid: Grid | None
    map: dict[str, Any]
    quarantine: Counter[str]
    checkpoints: list[int]
    attempts: list[Attempt]
    facts: dict[str, Any]
    touched: datetime | None
    notes: list[str] = field(default_factory=list)

    @property
    def columns(self) -> Mapping[str, Column]:
        """The numbers of metrics.jsonl."""
        return self.metrics.columns

    @property
    def state(self) -> str:
        """As status.json has it."""
        return str(self.status.get("state") or "state unknown")

    @property
    def release(self) -> Path | None:
        """The release, if there is one."""
        folder = RunFolder(self.path).release
        return folder if folder.is_dir() else None

    @property
    def modalities(self) -> dict[str, dict[str, Any]]:
        """What the config says of each modality."""
        return {str(name): _as_mapping(entry) for name, entry in _as_mapping(self.setting("data.modalities")).items()}

    def setting(self, key: str, default: Any = None) -> Any:
        """The value of a dotted key of the config."""
        return inner(self.config, key, default)


def inner(tree: Any, key: str, default: Any = None) -> Any:
    """The value of a dotted key of nested mappings, ``default`` where it is not there."""
    for part in key.split("."):
        if not isinstance(tree, Mapping) or part not in tree:
            return default
        tree = tree[part]
    return tree


def read_record(path: Path, name: str) -> Record:
    """Read the run in ``path``. Raises OSError where files may not be read."""
    run, notes = RunFolder(path), list[str]()

    def tried(what: Callable[[], T], default: T, file: str) -> T:
        """Damage of one file leaves out what it says."""
        try:
            return what()
        except DAMAGE as error:
            reason = without_secrets(str(error)).splitlines() or [type(error).__name__]
            notes.append(f"{file} cannot be read and is left out: {reason[0]}")
            return default

    nothing: dict[str, Any] = {}
    plan = tried(lambda: read_json(run.plan), nothing, run.plan.name)
    config = tried(lambda: _mapping(run.config), nothing, run.config.name) or _as_mapping(plan.get("config"))
    metrics = read_metrics(run.metrics, _number(inner(config, "data.global_batch")))
    if metrics.damaged:
        notes.append(f"{metrics.damaged:,} damaged lines of {run.metrics.name} are left out")
    grid = path / GRID_FILE
    return Record(
        name,
        path,
        tried(run.status, {}, "status.json"),
        config,
        plan,
        metrics,
        tried(lambda: _scores(run.evaluation), {}, run.evaluation.name),
        tried(lambda: _scores(run.evaluation_before), {}, run.evaluation_before.name),
        tried(lambda: {change.score: change for change in read_changes(run)}, {}, run.changes.name),
        tried(lambda: load_grid(grid), None, GRID_FILE) if grid.is_file() else None,
        tried(lambda: read_json(path / MAP_FILE), {}, MAP_FILE),
        read_quarantine(run.quarantine),
        sorted(checkpoint_steps(run.checkpoints)),
        read_attempts(path / "logs"),
        tried(lambda: read_json(run.parts / "facts.json"), {}, "parts/facts.json"),
        _touched([run.metrics, path / "status.json"]),
        notes,
    )


def is_run(path: Path) -> bool:
    """Whether a folder looks like a run's."""
    run = RunFolder(path)
    return any(file.is_file() for file in (run.config, run.plan, run.metrics, run.path / "status.json"))


def unique_names(paths: Sequence[Path]) -> list[str]:
    """Folder names; with folders in front, and then numbers, where runs would be called alike."""
    names = [path.resolve().name for path in paths]
    if len(set(names)) < len(names):
        names = ["/".join(path.resolve().parts[-2:]) for path in paths]
    return [name if names.count(name) == 1 else f"{name} ({place})" for place, name in enumerate(names, 1)]


def silent_for(record: Record) -> float | None:
    """Seconds since a running run last wrote a line; None where it is not running."""
    if record.state != "running" or record.touched is None:
        return None
    return max(0.0, time.time() - record.touched.timestamp())


def _mapping(path: Path) -> dict[str, Any]:
    return _as_mapping(yaml.safe_load(path.read_text(encoding="utf-8"))) if path.is_file() else {}


def _as_mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _scores(path: Path) -> dict[str, float]:
    found = read_json(path)
    return {key: float(value) for key, value in found.items() if isinstance(value, int | float)}


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and value > 0 else None


def _touched(paths: Sequence[Path]) -> datetime | None:
    times = [path.stat().st_mtime for path in paths if path.is_file()]
    return datetime.fromtimestamp(max(times)) if times else None
