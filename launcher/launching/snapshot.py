"""A copy of the code in the run folder, from which the job runs: later edits do not reach a queued job."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from mmpretrain.config.shipped import CODE


def take_snapshot(run_folder: Path) -> Path:
    """Copy the parts of the project that a job needs to ``run_folder/code`` and return that folder.

    The copy has the layout of a clone, also when this code was installed from a wheel. An earlier copy is replaced by
    two renames, after the new one is complete.
    """
    code, fresh, old = (run_folder / name for name in ("code", f".code.{os.getpid()}.new", f".code.{os.getpid()}.old"))
    for part, source in CODE.items():
        shutil.copytree(source, fresh / part, ignore=shutil.ignore_patterns("__pycache__", ".*"))
    if code.is_symlink():  # of a run of a sweep: what it leads to is the code of others, too, and may be gone
        code.unlink()
    elif code.exists():
        code.rename(old)
    fresh.rename(code)
    shutil.rmtree(old, ignore_errors=True)
    return code
