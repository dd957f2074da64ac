"""A published model becomes a release once, in the folder of the run that is fine-tuned from it."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

from launcher.finetuning.start import Start, StartError, opened_release
from launcher.planning.checks import own_process
from mmpretrain.files import replace_text
from mmpretrain.release_folder import ORIGIN, START
from mmpretrain.words import shortened

TIMEOUT_S = 1800  # of a conversion: large weights may still have to be fetched


def converted(start: Start, run_folder: Path) -> Start:
    """``start`` as a release in ``RUN/start``, made unless it is there. Raises StartError."""
    folder, origin = run_folder / START, run_folder / ORIGIN
    here = Path(start.source).exists()  # however its path is spelled
    asked = {"source": str(Path(start.source).resolve()) if here else start.source, "revision": start.revision}
    if folder.is_dir():
        there = json.loads(origin.read_text(encoding="utf-8")) if origin.exists() else {}
        if there != asked:
            raise StartError(
                f"{folder} was made of {there.get('source', 'something else')}, and {start.source} is asked for:"
                " use another run.name"
            )
        return _renamed(start, folder)
    fresh = run_folder / f".{START}.{os.getpid()}"
    run_folder.mkdir(parents=True, exist_ok=True)
    try:
        convert(start, fresh)
        replace_text(origin, json.dumps(asked) + "\n")
        fresh.rename(folder)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return _renamed(start, folder)


def convert(start: Start, folder: Path) -> Start:
    """``start`` as a release in ``folder``. Raises StartError."""
    revision = [start.revision] if start.revision else []
    done = own_process("mmpretrain.hub.conversion_process", start.source, str(folder), *revision, timeout_s=TIMEOUT_S)
    if done is None:
        raise StartError(f"the conversion of {start.source} did not end within {TIMEOUT_S} s")
    if done.returncode != 0:
        cause = shortened((done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1])
        raise StartError(f"the conversion of {start.source} failed: {cause}")
    if problems := json.loads(done.stdout.splitlines()[-1])["problems"]:
        raise StartError("; ".join(problems))
    return _renamed(start, folder)


def _renamed(start: Start, folder: Path) -> Start:
    """The release that ``start`` became, under the name of what it was."""
    return replace(opened_release(str(folder), None), name=start.name, origin=start.source)
