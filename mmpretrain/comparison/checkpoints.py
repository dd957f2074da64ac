"""Checkpoints of runs among the models: each becomes a release, by `mmpretrain export`'s own way, until it is measured.

What exports lies on a higher floor, so it is named and not imported (mmpretrain/config/implementation.py).
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from mmpretrain.comparison.job import EvaluateJob
from mmpretrain.comparison.sources import checkpoint_of
from mmpretrain.config.implementation import implementation
from mmpretrain.console import CommandError
from mmpretrain.distributed.world import World
from mmpretrain.problems import one_line
from mmpretrain.run_folder import RunFolder

EXPORT = "mmpretrain.training.export.export_run"
FOLDER = ".checkpoints"  # below the result's

log = logging.getLogger(__name__)


@contextmanager
def with_releases(job: EvaluateJob, world: World) -> Iterator[EvaluateJob]:
    """The job with a release in place of every RUN@STEP, which rank 0 makes and removes. A collective.

    Raises CommandError for a checkpoint that cannot be exported, on rank 0, whose end ends the others.
    """
    folder = Path(job.out) / FOLDER
    asked = {name: found for name, source in job.models.items() if (found := checkpoint_of(source)) is not None}
    if not asked:
        yield job
        return
    made = {
        name: str(folder / f"{run.path.name}@{step}-{number}")
        for number, (name, (run, step)) in enumerate(asked.items())
    }
    try:
        if world.rank == 0:
            shutil.rmtree(folder, ignore_errors=True)  # of a comparison that was killed
            for name, (run, step) in asked.items():
                _export(run, step, Path(made[name]))
        world.barrier(patient=True)
        yield replace(job, models={**job.models, **made})
    finally:
        if world.rank == 0:
            shutil.rmtree(folder, ignore_errors=True)


def _export(run: RunFolder, step: int, folder: Path) -> None:
    log.info("exporting %s after %d steps", run.path, step)
    try:
        implementation(EXPORT)(run, folder, step)
    except Exception as error:  # whatever a checkpoint, its config and its parts raise
        raise CommandError(getattr(error, "problems", None) or [f"{run.path}@{step}: {one_line(error)}"]) from error
