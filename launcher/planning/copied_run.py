"""What the store of ``checkpoint.copy_to`` holds of a run whose folder has no checkpoint. Nothing is fetched here."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from mmpretrain.config.root import Config
from mmpretrain.data.stores import Patience
from mmpretrain.engine.checkpoint_files import MANIFEST, newest_step, step_folder
from mmpretrain.engine.checkpoint_store import CheckpointStore, StoreError
from mmpretrain.run_folder import RunFolder

LOOK_S = 5.0  # that the store may be silent


@dataclass(frozen=True)
class Copied:
    """place: of the copies. step: of the newest complete one; None if there is none, or no config beside it. files: its
    manifest, and config.yaml and plan.json beside it, by their names in a run folder. notes: what the plan says of it.
    """

    place: str
    step: int | None = None
    files: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @contextmanager
    def as_folder(self) -> Iterator[RunFolder]:
        """The records as files of a run folder, for the time of the context."""
        with tempfile.TemporaryDirectory() as place:
            for name, text in self.files.items():
                path = Path(place) / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text)
            yield RunFolder(Path(place))


def holds_checkpoints(folder: RunFolder) -> bool:
    """Whether the run's own folder has one to go on from."""
    return newest_step(folder.checkpoints) is not None


def look_for_copies(config: Config) -> Copied | None:
    """What a store has of this run; None if none is asked for, or it has nothing."""
    store = CheckpointStore.of(config, Patience(connect_s=LOOK_S, silence_s=LOOK_S))
    if store is None:
        return None
    try:
        step = next(iter(store.steps()), None)
        if step is None:
            return None
        manifest = json.dumps(store.manifest(step))
        files = {name: text for name in ("config.yaml", "plan.json") if (text := store.record(name)) is not None}
    except StoreError as error:
        note = f"checkpoint.copy_to cannot be looked at from here ({error}); the ranks look again when they start"
        return Copied(str(store), notes=(note,))
    folder = RunFolder(Path())
    files[str(step_folder(folder.checkpoints, step) / MANIFEST)] = manifest
    known = step if folder.config.name in files else None
    return Copied(str(store), known, files, (f"continues after step {step}, fetched from {store}",))
