"""Shards by several processes."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path

from mmpretrain.data.pool import in_order
from mmpretrain.data.writing import BuildError
from shards.build_plan import Job
from shards.build_shard import Incomplete, ShardRecord, make_shard
from shards.sources.sample import Source


def make_shards(
    source: Source, jobs: list[Job], incomplete: Incomplete, folder: Path | None, workers: int
) -> Iterator[ShardRecord]:
    """The record of every job, in their order, whoever does it; with one worker in this process."""
    with deaths_named():
        yield from in_order(_work, jobs, workers, _remember, (source, incomplete, folder))


@contextmanager
def deaths_named() -> Iterator[None]:
    """Say what to do when a process that writes shards dies. Raises BuildError."""
    try:
        yield
    except BrokenProcessPool:
        problem = "a worker process died, perhaps for lack of memory: the same command goes on, with fewer --workers"
        raise BuildError(problem) from None


_setting: tuple[Source, Incomplete, Path | None] | None = None


def _remember(source: Source, incomplete: Incomplete, folder: Path | None) -> None:
    """In the process that works: remember what is built."""
    global _setting
    _setting = (source, incomplete, folder)


def _work(job: Job) -> ShardRecord:
    assert _setting is not None
    source, incomplete, folder = _setting
    return make_shard(source, job, incomplete, folder)
