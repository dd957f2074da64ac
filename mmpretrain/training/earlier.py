"""The release of a run that was complete and has gone on: kept beside the new one."""

from __future__ import annotations

import os
import shutil

from mmpretrain.run_folder import RunFolder


def keep_earlier(folder: RunFolder, released: int) -> None:
    """Before ``folder.release`` is replaced by one of ``released`` steps: put one of other steps, and its evaluation,
    into ``earlier/step-N``. It stays where it was, too, until it is replaced."""
    before = folder.status().get("released_step")
    if before is None or before == released or not folder.release.is_dir():
        return
    kept = folder.path / "earlier" / f"step-{before:08d}"
    if kept.exists():
        return
    writing = kept.with_suffix(".tmp")
    shutil.rmtree(writing, ignore_errors=True)
    shutil.copytree(folder.release, writing / folder.release.name, copy_function=_linked)
    if folder.evaluation.exists():
        shutil.copy2(folder.evaluation, writing)
    writing.rename(kept)


def _linked(source: str, target: str) -> None:
    """A file once more without its bytes, where the file system can: a release is replaced, never written into."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
