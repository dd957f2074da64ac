"""One rank's work, and the entry of local ranks: ``python -m mmpretrain.comparison.worker JOB PLACE``, both JSON."""

from __future__ import annotations

import json
from pathlib import Path

from mmpretrain.comparison.checkpoints import with_releases
from mmpretrain.comparison.compare import compare
from mmpretrain.comparison.job import RESULT, EvaluateJob
from mmpretrain.console import CommandError
from mmpretrain.data.decode import SampleError
from mmpretrain.data.quarantine import BadDataError
from mmpretrain.embedding.place import Place
from mmpretrain.embedding.worker import check_gpus, ranks_world, run_as_rank
from mmpretrain.files import replace_text


def work(job: EvaluateJob, place: Place) -> None:
    """This rank's share of a job; rank 0 writes the result. Raises Failure, ValueError or OSError."""
    try:
        with ranks_world(place) as world, with_releases(job, world) as releases:
            result = compare(releases, world)
        for model in result["models"]:
            model["source"] = job.models[model["name"]]
    except (BadDataError, SampleError) as error:
        raise CommandError([str(error)]) from None
    if place.rank == 0:
        folder = Path(job.out)
        folder.mkdir(parents=True, exist_ok=True)
        replace_text(folder / RESULT, json.dumps(result, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def _share(text: str, place: Place) -> None:
    check_gpus(place)
    work(EvaluateJob.from_json(text), place)


if __name__ == "__main__":
    run_as_rank(_share)
