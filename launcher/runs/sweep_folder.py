"""What the folder of a sweep says: its ``sweep.json``, and the runs that it names."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import psutil

from mmpretrain.run_folder import read_json

RECORD = "sweep.json"


def is_sweep(folder: Path) -> bool:
    """Whether a folder is that of a sweep."""
    return (folder / RECORD).is_file()


def read_record(folder: Path) -> dict[str, Any]:
    """name, command, directory; runs: name, path, values of each, doubles left out; launcher: the process that runs
    them, of a sweep on one machine. Raises DamagedFileError."""
    return read_json(folder / RECORD)


def run_folders(folder: Path) -> list[Path]:
    """The folders of a sweep's runs that were started, also those that lie elsewhere. Raises DamagedFileError."""
    paths = [Path(entry["path"]) for entry in read_record(folder).get("runs", [])]
    # Of a sweep that was moved the runs have moved as well.
    found = [folder / path.name if not path.exists() else path for path in paths]
    return [path for path in found if (path / "status.json").exists() or (path / "config.yaml").exists()]


def living_launcher(folder: Path) -> int | None:
    """The process on this machine that runs the sweep. Raises DamagedFileError."""
    noted = read_record(folder).get("launcher")
    if not isinstance(noted, dict) or noted.get("host") != socket.gethostname():
        return None
    try:
        process = psutil.Process(int(noted["pid"]))
        return process.pid if abs(process.create_time() - noted["since"]) < 1 else None
    except (psutil.Error, KeyError, TypeError, ValueError):
        return None


def not_started(folder: Path) -> list[str]:
    """Names of the runs that have no folder yet. Raises DamagedFileError."""
    started = {path.name for path in run_folders(folder)}
    names = [Path(entry["path"]).name for entry in read_record(folder).get("runs", [])]
    return [name for name in names if name not in started]
