"""The processes of one command: tasks of a Slurm step, local processes, or this one (no torch here)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict

from mmpretrain.config.implementation import implementation
from mmpretrain.console import CommandError
from mmpretrain.embedding.jobs import RankedJob
from mmpretrain.embedding.place import Place, place_of_step

POLL_S = 0.05
LAST_WORDS_S = 5.0  # for the rank that knows what went wrong, where another one ended first


def run_job(job: RankedJob, ranks: int | None) -> bool:
    """Do the work: this task's share in a Slurm step, else all of it by ``ranks`` local processes (default 1).

    Returns whether this process speaks for all: False on every rank of a Slurm step but the first.

    Raises Failure with what the first rank that failed said; whole shards stay, and the same command goes on.
    """
    if ranks is not None and ranks < 1:
        raise CommandError([f"--ranks is {ranks}: it must be at least 1"])
    place = place_of_step(job)
    if place is not None and ranks is not None:
        raise CommandError([f"--ranks is {ranks}, but srun has started {place.size} tasks already: leave it out"])
    if place is None and ranks is not None and ranks > 1:
        _run_local(job, ranks)
    else:
        implementation(f"{job.worker}.work")(job, place or Place())
    return place is None or place.rank == 0


def _run_local(job: RankedJob, ranks: int) -> None:
    with tempfile.TemporaryDirectory(prefix="ranks-") as folder:
        places = [Place(rank, ranks, rank, f"{folder}/meeting") for rank in range(ranks)]
        children = [_start(job, place) for place in places]
        try:
            problems = _wait(children)
        finally:
            for child in children:
                child.kill()
            for child in children:
                child.communicate()
    if problems:
        raise CommandError(problems)


def _start(job: RankedJob, place: Place) -> subprocess.Popen[str]:
    threads = max(1, len(os.sched_getaffinity(0)) // place.size)
    environment = {"OMP_NUM_THREADS": str(threads), "TOKENIZERS_PARALLELISM": "false"} | os.environ
    command = [sys.executable, "-m", job.worker, job.to_json(), json.dumps(asdict(place))]
    return subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def _wait(children: list[subprocess.Popen[str]]) -> list[str]:
    """Until all have ended, or one has failed; what is wrong then."""
    said: dict[int, list[str]] = {}  # by those that failed, in this order
    patience = None
    while True:
        codes = [child.poll() for child in children]
        said |= {rank: _problems(children[rank]) for rank, code in enumerate(codes) if code and rank not in said}
        # Ranks that only lost a peer say nothing, and must not hide what went wrong.
        if told := next((problems for problems in said.values() if problems), None):
            return told
        if said and patience is None:
            patience = time.monotonic() + LAST_WORDS_S
        if None not in codes or (patience is not None and time.monotonic() > patience):
            return [
                f"rank {rank} ended with exit code {codes[rank]}: see above; the same command goes on"
                for rank in list(said)[:1]
            ]
        time.sleep(POLL_S)


def _problems(child: subprocess.Popen[str]) -> list[str]:
    """What a rank that has ended printed last, if that is what :func:`worker.main` prints."""
    assert child.stdout is not None
    try:
        return json.loads(child.stdout.read().splitlines()[-1])["errors"]
    except (ValueError, KeyError, TypeError, IndexError):
        return []
