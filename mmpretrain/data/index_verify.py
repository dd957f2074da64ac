"""Comparing shards and columns with their index (no torch here)."""

from __future__ import annotations

import hashlib
import os
import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from mmpretrain.data.index_scan import Content
from mmpretrain.data.index_shard import Shard
from mmpretrain.data.index_table import Index
from mmpretrain.data.pool import usable_cores


def verify_shards(
    index: Index,
    progress: Callable[[str, int, int], None] | None = None,
    share: float = 1.0,
    seed: int = 0,
    workers: int | None = None,
) -> list[str]:
    """Compare shards of a local folder, and their columns, with the index. Returns one sentence per problem.

    The sizes of all shards and the sha256 of all columns are compared, the sha256 of the shards themselves for a share
    of them, at least one, drawn by the seed. progress: called with a shard's name, how many are done, and of how many.
    workers: threads (hashing leaves Python's lock), by default as many as cores.
    """
    count = len(index.shards)
    drawn = random.Random(seed).sample(range(count), min(count, max(1, round(share * count)))) if share < 1 else None
    hashed = set(range(count) if drawn is None else drawn)
    found: list[str] = []
    with ThreadPoolExecutor(workers or usable_cores()) as pool:
        jobs = [(shard, number in hashed) for number, shard in enumerate(index.shards)]
        for done, problems in enumerate(pool.map(partial(_problems, index), jobs), start=1):
            found += problems
            if progress is not None:
                progress(index.shards[done - 1].name, done, count)
    return found


def _problems(index: Index, job: tuple[Shard, bool]) -> list[str]:
    shard, hashed = job
    (tar, content), *columns = index.files(shard)
    found = [_problem(tar, content, hashed), *(_problem(path, stored, True) for path, stored in columns)]
    return [problem for problem in found if problem is not None]


def _problem(path: str, content: Content, hashed: bool) -> str | None:
    """What is wrong with a file. hashed: whether more is compared than its size."""
    try:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size != content.bytes:
                return f"{path} has changed: it has {size} bytes, the index says {content.bytes}"
            actual = hashlib.file_digest(file, "sha256").hexdigest() if hashed else content.sha256
    except OSError as error:
        return f"{path} cannot be read: {error.strerror}"
    if actual != content.sha256:
        return f"{path} has changed: its sha256 is {actual[:12]}…, the index says {content.sha256[:12]}…"
    return None
