"""Streams from stores that fail: the samples of the local stream, with several ranks and processes on one cache."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mmpretrain.data import fetch
from mmpretrain.data.index import IndexMissingError, ShardError
from mmpretrain.data.stores import Patience
from mmpretrain.data.stream import Stream
from tests.data.faulty_server import Fault, Store, dropped, late, served, status, truncated, wrong
from tests.data.small_dataset import stream, write_split
from tests.data.test_stream import content

SIZES = (5, 3, 6, 1, 6)
QUICK = Patience(connect_s=2, silence_s=0.25, slow_s=0.5, floor=100_000, attempts=6, wait_s=0.01, longest_wait_s=0.1)


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """A data set on an HTTP server, with a cache of its own."""
    monkeypatch.setenv("MMPRETRAIN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(fetch, "PATIENCE", QUICK)
    write_split(tmp_path / "data" / "train", SIZES)
    with served(tmp_path / "data") as running:
        yield running


def run(made: Stream, stop: int = 9) -> list[object]:
    """What the batches of the first steps hold."""
    return [content(batch) for batch in made.batches(0, stop)]


@pytest.mark.processes
def test_two_ranks_with_two_processes_each_get_the_local_stream_through_faults(store: Store, tmp_path: Path) -> None:
    planned: list[list[Fault]] = [
        [status(503, retry_after=0.01), dropped(5000)],
        [late(0.1), truncated(3000)],
        [wrong],
        [store.silent(2000)],
        [status(500), status(429)],
    ]
    for number, faults in enumerate(planned):
        store.faults[f"shard-00000{number}.tar"] = faults
        store.faults[f"shard-00000{number}.safetensors"] = [status(500)]
    store.faults["index.json"] = [status(500), dropped(100)]
    remote = [stream(store.url, rank, 2, workers=2) for rank in range(2)]
    found: list[list[object]] = [[], []]

    def read(rank: int) -> None:
        found[rank] = run(remote[rank])

    ranks = [threading.Thread(target=read, args=(rank,)) for rank in range(2)]
    for rank in ranks:
        rank.start()
    for rank in ranks:
        rank.join(60)
    assert found == [run(stream(tmp_path / "data", rank, 2)) for rank in range(2)]
    counts = [made.store_counts() for made in remote]
    assert sum(c.shards for c in counts if c) == 10, "each file once, whoever fetched it"
    assert sum(c.retries for c in counts if c) >= 10
    assert len(os.listdir(tmp_path / "cache" / "shards")) == 10


def test_what_is_fetched_ahead_is_not_waited_for(store: Store) -> None:
    store.always[".tar"] = late(0.15)
    ahead = stream(store.url, window=1, global_batch=1)
    batches = ahead.batches(0, 20)
    for _ in range(20):
        next(batches)
        time.sleep(0.08)  # a step; the five shards take 0.75 s one after the other
    counts = ahead.store_counts()
    assert counts is not None
    assert counts.hits >= 8, "all files but the first shard and its columns were there when they were wanted"


def test_folders_of_several_stores_are_one_data_set(store: Store, tmp_path: Path) -> None:
    write_split(tmp_path / "data" / "more" / "train", (4, 2))
    write_split(tmp_path / "data" / "test", (3,))
    whole = stream(store.url, more_paths=[f"{store.url}/more"])
    local = stream(tmp_path / "data", more_paths=[str(tmp_path / "data" / "more")])
    assert len(whole.index) == sum(SIZES) + 6
    assert run(whole) == run(local)
    test = Stream(whole.config, "test", 0, 0, 1, dict)
    assert len(test.index) == 3, "the further folder has no such split"
    with pytest.raises(IndexMissingError, match=r"nowhere/train/index\.json is missing"):
        stream(store.url, more_paths=[f"{store.url}/nowhere"])


@pytest.mark.parametrize("workers", [0, pytest.param(1, marks=pytest.mark.processes)])
def test_a_store_that_refuses_ends_the_run_with_one_clear_error(store: Store, workers: int) -> None:
    store.always[".tar"] = status(403)
    secret = store.url.replace("http://", "http://me:hunter2@")
    with pytest.raises(ShardError, match=r"http://\*\*\*@127.*\.tar is refused \(403\)") as caught:
        next(stream(secret, workers=workers).batches(0, 1))
    assert "hunter2" not in str(caught.value)
