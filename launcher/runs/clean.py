"""What of a run's folder can be deleted, and deleting it. The newest complete checkpoint, the best one, the release and
the records of training stay, unless everything is wanted gone."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from launcher.runs.choice import named
from launcher.runs.reading import Reading
from launcher.runs.sweep_folder import living_launcher, run_folders
from mmpretrain.console import CommandError
from mmpretrain.engine.checkpoint_files import MANIFEST, find_problem, read_manifest, step_folder, steps
from mmpretrain.run_folder import Busy, RunFolder, locked


class Part(StrEnum):
    """A kind of what runs leave behind."""

    checkpoints = "checkpoints"
    """Those that are not the newest complete or the best, and what was left half written."""

    code = "code"
    """The copy of the code that the run was started with; the next start makes another."""

    logs = "logs"
    """What ranks printed, and submitit's files."""

    records = "records"
    """Keys of the samples that steps learned from, and of those that could not be read."""

    trackers = "trackers"
    """Event files of TensorBoard, and what wandb keeps."""


_FILES: dict[Part, tuple[str, ...]] = {
    Part.code: ("code", ".code.*"),
    Part.logs: ("logs",),
    Part.records: ("consumed.jsonl", "quarantine.jsonl"),
    Part.trackers: ("tensorboard", "wandb"),  # not "tracking", by which a resumed run knows what it has sent
}

_OF_SWEEP: dict[Part, tuple[str, ...]] = {Part.code: (".code/*", ".code.*"), Part.logs: (".arrays/*",)}
"""The same of a sweep's own folder: copies of the code that its runs link to, and links to runs by Slurm's numbers."""


@dataclass(frozen=True)
class Leftover:
    """Something that can be deleted. size: bytes."""

    part: str
    path: Path
    size: int


def leftovers(run: Reading, parts: Iterable[Part], *, everything: bool = False) -> list[Leftover]:
    """What of ``run`` can be deleted. everything: also the checkpoints and the release that are kept otherwise.

    Raises CommandError for a run that may be alive.
    """
    refuse_living(run)
    found: list[tuple[str, Path]] = []
    for part in parts:
        if part is Part.checkpoints:
            found += [(part.value, path) for path in _checkpoints(run, everything=everything)]
        else:
            found += [(part.value, path) for pattern in _FILES[part] for path in sorted(run.path.glob(pattern))]
    if everything and (run.path / "release").exists():
        found.append(("release", run.path / "release"))
    return [Leftover(part, path, _size(path)) for part, path in found]


def leftovers_of_sweep(sweep: Path, parts: Iterable[Part]) -> list[Leftover]:
    """What in a sweep's folder, beside its runs, can be deleted once theirs is. Raises CommandError while a process
    runs the sweep; whether its runs live is to be asked before (:func:`leftovers`)."""
    if (process := living_launcher(sweep)) is not None:
        raise CommandError([f"{sweep} is in use by process {process}: nothing of it is deleted"])
    found = [
        (part.value, path) for part in parts for way in _OF_SWEEP.get(part, ()) for path in sorted(sweep.glob(way))
    ]
    return [Leftover(part, path, _size(path)) for part, path in found]


def delete_of_sweep(sweep: Path, things: Sequence[Leftover]) -> None:
    """Delete them, but for copies of the code that a run links to again. Raises as :func:`leftovers_of_sweep`,
    OSError."""
    leftovers_of_sweep(sweep, ())
    linked = {(run / "code").resolve() for run in run_folders(sweep) if (run / "code").is_symlink()}
    for thing in things:
        if thing.path.resolve() not in linked:
            shutil.rmtree(thing.path)
    for folder in {thing.path.parent for thing in things} - {sweep}:
        if not any(folder.iterdir()):
            folder.rmdir()


def refuse_living(run: Reading) -> None:
    """Raises CommandError if a process of the run may still write."""
    if run.may_live:
        raise CommandError([f"{run.path} may be in use ({run.job.words}): nothing of it is deleted"])


def delete(run: Reading, things: Sequence[Leftover]) -> None:
    """Delete them; no launcher can start the run meanwhile. Raises CommandError if one does already, if the run was
    started since it was read, or if a checkpoint would go that it needs; OSError."""
    try:
        with locked(run.path / ".lock", Busy.fail):
            (now,) = named([str(run.path)], run.path.parent)
            refuse_living(now)
            _refuse_needed(run, things)
            for thing in things:
                if thing.path.is_dir() and not thing.path.is_symlink():
                    shutil.rmtree(thing.path)
                else:  # of a link the link itself
                    thing.path.unlink(missing_ok=True)
    except BlockingIOError:
        raise CommandError([f"{run.path}: a launcher is starting this run right now: nothing was deleted"]) from None


def _checkpoints(run: Reading, *, everything: bool) -> list[Path]:
    folder = RunFolder(run.path).checkpoints
    if everything:
        return [folder] if folder.exists() else []
    done = steps(folder)
    newest = next((step for step in done if is_complete(step_folder(folder, step))), None)
    if newest is None:  # nothing is certain enough to be deleted
        return sorted(folder.glob("step-*.tmp"))
    needed = _needed(run, step_folder(folder, newest))
    # A newer one that is damaged stays, too: it tells what happened.
    old = [step_folder(folder, step) for step in done if step < newest and step not in needed]
    return [*sorted(old), *sorted(folder.glob("step-*.tmp"))]


def _needed(run: Reading, newest: Path) -> set[Any]:
    """Steps that the run or a start from it looks for beside the newest one: the best, as the status and as the
    checkpoint that the run goes on from know it, and the one that is released."""
    bests = [facts.get("best") for facts in (run.status, read_manifest(newest))]
    return {run.status.get("released_step"), *(best.get("step") for best in bests if isinstance(best, dict))}


def _refuse_needed(run: Reading, things: Sequence[Leftover]) -> None:
    """Raises CommandError if the newest checkpoint, which stays, turns out to be damaged when all of it is read: then
    the run goes on from an older one."""
    folder = RunFolder(run.path).checkpoints
    doomed = {thing.path for thing in things}
    old = {step for step in steps(folder) if step_folder(folder, step) in doomed}
    kept = [step_folder(folder, step) for step in steps(folder) if step not in old]
    newest = next((checkpoint for checkpoint in kept if is_complete(checkpoint)), None)
    if old and newest is not None and (problem := find_problem(newest)):
        raise CommandError([f"{newest} is damaged ({problem}), so that older ones are needed: nothing was deleted"])


def is_complete(checkpoint: Path) -> bool:
    """Whether all files of the manifest are there in their sizes; what they hold is not read, for it may be much."""
    try:
        files = json.loads((checkpoint / MANIFEST).read_text())["files"]
        return bool(files) and all((checkpoint / name).stat().st_size == of["size"] for name, of in files.items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def _size(path: Path) -> int:
    """Bytes of a file or of everything below a folder; links count as themselves."""
    if not path.is_dir() or path.is_symlink():
        return path.lstat().st_size
    return sum(
        entry.lstat().st_size
        for root, _, names in os.walk(path)
        for entry in (Path(root) / name for name in names)
        if os.path.lexists(entry)
    )
