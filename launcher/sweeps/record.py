"""Writing what the folder of a sweep holds beside its runs: ``sweep.json``, and the code that they run from."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import socket
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import psutil

from launcher.launching.snapshot import take_snapshot
from launcher.runs.sweep_folder import RECORD, read_record
from launcher.sweeps.plan import Fate, SweepPlan
from mmpretrain.files import replace_text
from mmpretrain.run_folder import Busy, locked

CODE = ".code"


def write_record(plan: SweepPlan) -> None:
    """Note the runs of a sweep; those of earlier commands stay in it."""
    plan.folder.mkdir(parents=True, exist_ok=True)
    runs = [
        {"name": element.name, "path": str(element.folder), "values": dict(element.values)}
        for element in plan.elements
        if element.fate is not Fate.double
    ]
    paths = {run["path"] for run in runs}

    def changed(before: Mapping[str, Any]) -> dict[str, Any]:
        kept = [run for run in before.get("runs", []) if run["path"] not in paths]
        about = {"name": plan.name, "command": plan.command, "directory": str(Path.cwd())}
        return {**before, **about, "runs": [*kept, *runs]}

    _update(plan.folder, changed)


def note_launcher(folder: Path, *, alive: bool) -> None:
    """Note that this process runs the sweep, or that it no longer does."""
    own = {"host": socket.gethostname(), "pid": os.getpid(), "since": psutil.Process().create_time()}
    _update(folder, lambda before: {**before, "launcher": own if alive else None})


def _update(folder: Path, changed: Callable[[Mapping[str, Any]], dict[str, Any]]) -> None:
    with locked(folder / ".sweep.lock", Busy.wait):
        replace_text(folder / RECORD, json.dumps(changed(read_record(folder)), indent=1, default=str))


def shared_code(folder: Path) -> tuple[Callable[[Path], Path], Path]:
    """Copy the code once for all runs of a submission; what then links to it as ``code`` in a run's folder, and where
    it is.

    A copy is named by what is in it and never changes, for runs of an earlier submission may still use theirs.
    """
    fresh = folder / f"{CODE}.{os.getpid()}"
    fresh.mkdir(parents=True)
    copy = take_snapshot(fresh)
    kept = folder / CODE / _digest(copy)
    kept.parent.mkdir(exist_ok=True)
    try:
        copy.rename(kept)
    except OSError:  # there already
        if not kept.is_dir():
            raise
    shutil.rmtree(fresh)
    return (lambda run_folder: _link(run_folder / "code", kept)), kept


def _link(link: Path, code: Path) -> Path:
    if link.is_symlink():
        link.unlink()
    elif link.exists():
        shutil.rmtree(link)
    link.symlink_to(os.path.relpath(code, link.parent))
    return link


def _digest(folder: Path) -> str:
    found = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        found.update(f"{path.relative_to(folder)}\0".encode() + path.read_bytes())
    return found.hexdigest()[:16]
