"""One rank's work, and the entry of local ranks: ``python -m mmpretrain.embedding.worker JOB PLACE``, both JSON."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist

from mmpretrain.console import CommandError
from mmpretrain.data.decode import SampleError
from mmpretrain.data.quarantine import BadDataError
from mmpretrain.distributed.world import World
from mmpretrain.embedding.jobs import EmbeddingJob, EmbedJob, PairJob, job_from_json
from mmpretrain.embedding.place import Place, end_with_parent

PATIENCE = timedelta(hours=2)  # for ranks whose share of a memory takes longer to read


def work(job: EmbeddingJob, place: Place) -> None:
    """This rank's share of a job. Raises Failure, ValueError or OSError with what is wrong."""
    try:
        # Pairing needs no transformers, which take seconds to import.
        if isinstance(job, EmbedJob):
            from mmpretrain.embedding.encode import embed_share

            embed_share(job, place.rank, place.size, device_of(place))
        elif isinstance(job, PairJob):
            from mmpretrain.embedding.pairing import pair_share

            with ranks_world(place) as world:
                pair_share(job, world)
    except (BadDataError, SampleError) as error:
        raise CommandError([str(error)]) from None


def main() -> None:
    """Do the share that the arguments describe; problems go to stdout as JSON, exit code 1."""

    def share(job: str, place: Place) -> None:
        asked = job_from_json(job)
        _check_gpus(asked, place)
        work(asked, place)

    run_as_rank(share)


def run_as_rank(share: Callable[[str, Place], None]) -> None:
    """Do one rank's share in a process of its own, of the job and the place that the command line names.

    share: what does it, given the job's JSON. Problems go to stdout as JSON, exit code 1.
    """
    end_with_parent()
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        share(sys.argv[1], Place(**json.loads(sys.argv[2])))
    except (CommandError, ValueError, OSError) as error:
        print(json.dumps({"errors": getattr(error, "problems", None) or [str(error)]}), flush=True)
        sys.exit(1)


@contextmanager
def ranks_world(place: Place) -> Iterator[World]:
    """The ranks as a process group; alone, none is needed."""
    device = device_of(place)
    if place.size == 1:
        yield World.current(device)
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    backend = "nccl" if device.type == "cuda" else "gloo"
    assert place.meeting is not None
    Path(place.meeting).parent.mkdir(parents=True, exist_ok=True)
    method = f"file://{place.meeting}"
    dist.init_process_group(backend, init_method=method, rank=place.rank, world_size=place.size, timeout=PATIENCE)
    try:
        yield World.current(device)
    finally:
        dist.destroy_process_group()


def _check_gpus(job: EmbeddingJob, place: Place) -> None:
    if isinstance(job, PairJob):
        check_gpus(place)


def check_gpus(place: Place) -> None:
    """Raises Failure if ranks of ``--ranks`` that talk share a GPU: NCCL's own message helps nobody.

    Tasks of an ``srun`` do not come here: each may see a GPU of its own, and no other.
    """
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else None
    if gpus is not None and place.local_rank >= gpus:
        raise CommandError([f"there are {gpus} GPUs here: start no more ranks, or hide the GPUs"])


def device_of(place: Place) -> torch.device:
    """The GPU of a rank; ranks may share one. Without any, the CPU."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", place.local_rank % torch.cuda.device_count())


if __name__ == "__main__":
    main()
