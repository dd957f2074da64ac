"""The commit protocol of checkpoints, on files alone (no torch here).

    checkpoints/
      step-00000042.tmp/      being written; ignored and removed by the next start
      step-00000042/          complete: MANIFEST.json lists size and sha256 of every other file in it
      latest                  text: the newest complete folder's name

Every rank describes a share of the files in its done-marker, and checks the same share before loading: hashing takes
1/W of the time, and no rank waits long for another.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from mmpretrain.endings import Ending, ending_of
from mmpretrain.files import replace_text, sync

MANIFEST = "MANIFEST.json"
LEAST_FREE = 1 << 20  # bytes: a disk with less than that is full
LATEST = "latest"
logger = logging.getLogger(__name__)


class CheckpointError(RuntimeError):
    """A checkpoint cannot be written, or none of those that exist can be used."""


class DiskFullError(CheckpointError):
    """There is no room for a checkpoint."""

    ending = Ending.disk_full


class NoCheckpointError(CheckpointError):
    """There were checkpoints, and none of them can be used."""

    ending = Ending.no_checkpoint


def is_full(error: BaseException, folder: Path) -> bool:
    """Whether a write into ``folder`` failed for want of room: what libraries say of it differs, and not all say it."""
    if isinstance(error, DiskFullError) or ending_of(error) is Ending.disk_full:
        return True
    if "no space left" in str(error).lower() or "disk quota exceeded" in str(error).lower():
        return True
    place = next((place for place in (folder, *folder.parents) if place.is_dir()), folder)
    try:
        return shutil.disk_usage(place).free < LEAST_FREE
    except OSError:
        return False


def step_folder(checkpoints: Path, step: int) -> Path:
    """Where the checkpoint after ``step`` steps lies."""
    return checkpoints / f"step-{step:08d}"


def writing_folder(checkpoints: Path, step: int) -> Path:
    """Where it lies until it is complete."""
    return step_folder(checkpoints, step).with_suffix(".tmp")


def steps(checkpoints: Path) -> list[int]:
    """The steps of all checkpoints that were renamed into place, newest first; their files are not looked at."""
    names = (path.name.removeprefix("step-") for path in checkpoints.glob("step-*"))
    return sorted((int(name) for name in names if name.isdigit()), reverse=True)


def newest_step(checkpoints: Path) -> int | None:
    """The newest checkpoint's step, for messages; None without one."""
    return next(iter(steps(checkpoints)), None)


def newest_manifest(checkpoints: Path) -> tuple[int | None, dict[str, Any]]:
    """The step and the manifest of the newest checkpoint that is whole at a first look, for messages; None, and an
    empty one, if there is none."""
    for step in steps(checkpoints):
        folder = step_folder(checkpoints, step)
        if seen_problem(folder) is None:
            return step, read_manifest(folder)
    return None, {}


def start_writing(checkpoints: Path, step: int) -> Path:
    """An empty ``step-N.tmp`` to write into; leftovers of earlier attempts are removed."""
    checkpoints.mkdir(parents=True, exist_ok=True)
    for leftover in checkpoints.glob("step-*.tmp"):
        shutil.rmtree(leftover)
    folder = writing_folder(checkpoints, step)
    folder.mkdir()
    return folder


def describe_share(writing: Path, rank: int, world_size: int) -> None:
    """Flush and hash this rank's share of the files into its done-marker; all of them must be written by now."""
    describe_files(writing, rank, _names(writing)[rank::world_size])


def describe_files(writing: Path, rank: int, names: Collection[str]) -> None:
    """Flush and hash these files into the rank's done-marker; what no rank describes is left to :func:`commit`."""
    replace_text(_done_marker(writing, rank), json.dumps({name: describe(writing / name) for name in names}))


def commit(
    writing: Path,
    facts: dict[str, Any],
    world_size: int,
    patience_s: float = 60,
    given_up: Callable[[], bool] = lambda: False,
) -> Path:
    """Turn a fully described ``step-N.tmp`` into ``step-N``: manifest, flush, rename, ``latest``.

    patience_s: how long another rank's done-marker may take to show. given_up: whether waiting for it is over before.
    Raises CheckpointError when a rank's done-marker is missing.
    """
    markers = [_done_marker(writing, rank) for rank in range(world_size)]
    _wait_for(markers, patience_s, given_up)
    files = {name: entry for marker in markers for name, entry in json.loads(marker.read_text()).items()}
    # Ranks that listed a shared folder at different moments may have left a file to one another.
    files |= {name: describe(writing / name) for name in _names(writing) if name not in files}
    for marker in markers:
        marker.unlink()
    replace_text(writing / MANIFEST, json.dumps({**facts, "world_size": world_size, "files": files}, indent=1))
    for folder in (path for path in writing.rglob("*") if path.is_dir()):
        sync(folder)
    final = writing.with_suffix("")
    if final.exists():  # only a damaged one can stand here: a run never writes the same step twice otherwise
        shutil.rmtree(final)
    os.rename(writing, final)
    replace_text(final.parent / LATEST, final.name)
    return final


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a complete checkpoint."""
    return json.loads((folder / MANIFEST).read_text())


def find_problem(folder: Path, rank: int = 0, world_size: int = 1) -> str | None:
    """What is wrong with a checkpoint, as far as this rank's share of its files tells; nothing is unpickled."""
    try:
        listed = read_manifest(folder)["files"]
        if not listed:
            return f"{MANIFEST} lists no files"
        for name in sorted(listed)[rank::world_size]:
            if problem := _compare(folder / name, listed[name]):
                return problem
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return f"{MANIFEST} or a file cannot be read ({error})"
    return None


def seen_problem(folder: Path) -> str | None:
    """What is wrong with a checkpoint at a first look, which reads no file but the manifest; None if nothing is."""
    if not (folder / MANIFEST).exists():
        return f"{MANIFEST} is missing"
    try:
        listed = read_manifest(folder).get("files", {})
        wrong = (name for name in listed if (folder / name).stat().st_size != listed[name]["size"])
        name = next(wrong, None)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return f"{MANIFEST} or a file cannot be read ({error})"
    return name and f"{name} has another size than when it was written"


def lost(checkpoints: Path) -> bool:
    """Whether a run had a checkpoint once: a new start without one would be a silent restart from scratch."""
    return (checkpoints / LATEST).exists()


def named_latest(checkpoints: Path) -> int | None:
    """The step that ``latest`` names; None without it, or where it cannot be read."""
    try:
        name = (checkpoints / LATEST).read_text().strip().removeprefix("step-")
    except (OSError, UnicodeDecodeError):
        return None
    return int(name) if name.isdigit() else None


def name_latest(checkpoints: Path, step: int) -> None:
    """Let ``latest`` name the checkpoint after ``step`` steps."""
    replace_text(checkpoints / LATEST, step_folder(checkpoints, step).name)


def prune(checkpoints: Path, step: int, keep_last: int, keep_every: int | None, keep: Collection[int] = ()) -> None:
    """After ``step`` was committed, keep the newest ``keep_last``, those at multiples of ``keep_every``, and ``keep``.

    Later steps go as well: a run that wrote ``step`` after them had found them damaged.
    """
    done = steps(checkpoints)
    for old in set(done) - kept_steps(done, step, keep_last, keep_every, keep):
        # What cannot be deleted now is deleted next time; training is worth more than the space.
        shutil.rmtree(step_folder(checkpoints, old), onerror=_warn)


def kept_steps(
    done: Collection[int], step: int, keep_last: int, keep_every: int | None, keep: Collection[int] = ()
) -> set[int]:
    """Those of ``done`` that stay after ``step``, as :func:`prune` says."""
    kept = {s for s in done if keep_every is not None and s % keep_every == 0 and s <= step}
    newest = sorted((s for s in done if s <= step), reverse=True)[:keep_last]
    return kept | {*newest, *keep} & {*done}


def _compare(path: Path, expected: dict[str, Any]) -> str | None:
    if not path.is_file():
        return f"{path.name} is missing"
    if path.stat().st_size != expected["size"]:
        return f"{path.name} has {path.stat().st_size} bytes instead of {expected['size']}"
    if describe(path)["sha256"] != expected["sha256"]:
        return f"the content of {path.name} has changed since it was written"
    return None


def _wait_for(markers: list[Path], patience_s: float, given_up: Callable[[], bool]) -> None:
    end = time.monotonic() + patience_s
    while absent := [rank for rank, marker in enumerate(markers) if not marker.exists()]:
        if given_up() or time.monotonic() >= end:
            folder = markers[0].parent
            raise CheckpointError(
                f"{folder}: ranks {absent} did not finish writing (do all nodes share the run's folder?); the previous"
                " checkpoint stays in use"
            )
        time.sleep(0.1)


def _done_marker(writing: Path, rank: int) -> Path:
    return writing / f"rank-{rank:05d}.done"


def _names(writing: Path) -> list[str]:
    """The checkpoint's files; hidden ones are markers on their way, which other ranks write at this very time."""
    files = (path for path in writing.rglob("*") if path.is_file())
    return sorted(str(p.relative_to(writing)) for p in files if p.suffix != ".done" and not p.name.startswith("."))


def describe(path: Path) -> dict[str, Any]:
    """Size and sha256 of a file, which is flushed to the disk."""
    with path.open("rb") as stream:
        os.fsync(stream.fileno())
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
        return {"size": stream.tell(), "sha256": digest}


def _warn(_: Any, path: str, error: tuple[Any, BaseException, Any]) -> None:
    logger.warning("an old checkpoint could not be deleted: %s (%s)", path, error[1])
