"""Remote shards: whole, verified, bounded, fetched once for all processes of a node, from plain URLs only."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import fsspec
import pytest

from mmpretrain.config.data import DataConfig, remote_problem
from mmpretrain.data import cache as module
from mmpretrain.data.cache import Cache, cache_folder, release
from mmpretrain.data.index import Index, ShardError, load_index
from mmpretrain.data.reader import Reader
from mmpretrain.data.stores import Patience, Remote
from mmpretrain.endings import Ending, ending_of
from tests.data.small_dataset import write_split

MEGABYTE = 1 << 20


@pytest.fixture
def remote(tmp_path: Path) -> Iterator[Index]:
    """Five shards in memory://."""
    yield from uploaded(tmp_path / "source", (2,) * 5)


def uploaded(source: Path, sizes: tuple[int, ...]) -> Iterator[Index]:
    """The index of a small split in fsspec's memory, which is emptied afterwards."""
    write_split(source, sizes)
    filesystem = fsspec.filesystem("memory")
    filesystem.put(str(source), "/bucket/train", recursive=True)
    yield load_index("memory://bucket/train")
    filesystem.rm("/bucket", recursive=True)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[str, Counter[str]]]:
    """A file server on loopback: its URL, and how often each path was asked for by GET."""
    requests: Counter[str] = Counter()

    class Handler(SimpleHTTPRequestHandler):
        def do_GET(self) -> None:
            requests[self.path] += 1
            super().do_GET()

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(tmp_path))) as http:
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{http.server_port}", requests
        http.shutdown()
        thread.join()


def names(folder: Path) -> set[str]:
    """The files of a cache's shards."""
    return {path.name for path in (folder / "shards").iterdir()}


def fetch(cache: Cache, index: Index, number: int) -> None:
    """Bring a shard into the cache, and let go of it."""
    release(cache.open(remote_shard(index, number)))


def remote_shard(index: Index, number: int) -> Remote:
    """A shard, as the cache knows it."""
    shard = index.shards[number]
    return Remote(index.path(shard), shard.bytes, shard.sha256)


def test_reads_through_the_cache_and_fetches_once(remote: Index, tmp_path: Path) -> None:
    counted = []
    for _ in range(2):
        cache = Cache(tmp_path / "cache", MEGABYTE)
        samples = list(Reader(remote, cache=cache).samples(range(10)))
        counted.append(cache.counters.counts())
    assert [s["__key__"] for s in samples] == [f"s{n:04d}" for n in range(10)]
    assert samples[0]["__url__"] == "memory://bucket/train/shard-000000.tar"
    files = [content for shard in remote.shards for _, content in remote.files(shard)]
    assert len(files) == 10 and [(counts.shards, counts.hits) for counts in counted] == [(10, 0), (0, 5)]
    assert counted[0].fetched_bytes == sum(content.bytes for content in files)
    assert names(tmp_path / "cache") == {content.sha256 for content in files}


def test_over_http(server: tuple[str, Counter[str]], tmp_path: Path) -> None:
    pytest.importorskip("aiohttp")
    url, requests = server
    write_split(tmp_path / "train", (3, 2))
    reader = Reader(load_index(f"{url}/train"), cache=Cache(tmp_path / "cache", MEGABYTE))
    assert [s["__key__"] for s in reader.samples(range(5))] == [f"s{n:04d}" for n in range(5)]
    assert requests["/train/shard-000001.tar"] == requests["/train/columns/shard-000001.safetensors"] == 1


@pytest.mark.processes
def test_processes_share_one_download(server: tuple[str, Counter[str]], tmp_path: Path) -> None:
    pytest.importorskip("aiohttp")
    url, requests = server
    write_split(tmp_path / "train", (3,))
    index = load_index(f"{url}/train")
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=fetch, args=(Cache(tmp_path / "cache", MEGABYTE), index, 0)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert requests["/train/shard-000000.tar"] == 1


def test_the_file_used_longest_ago_goes_first(remote: Index, tmp_path: Path) -> None:
    cache = Cache(tmp_path, 3 * remote.shards[0].bytes)
    for number in (0, 1, 2, 0, 3):
        fetch(cache, remote, number)
        time.sleep(0.01)
    assert names(tmp_path) == {remote.shards[number].sha256 for number in (0, 2, 3)}


def test_files_in_use_stay(remote: Index, tmp_path: Path) -> None:
    cache = Cache(tmp_path, 2 * remote.shards[0].bytes)
    used = cache.open(remote_shard(remote, 0))
    for number in (1, 2, 3):
        fetch(cache, remote, number)
    assert names(tmp_path) == {remote.shards[0].sha256, remote.shards[3].sha256}
    also_used = cache.open(remote_shard(remote, 4))
    with pytest.raises(ShardError, match=r"shards in use leave .* raise data\.cache_gb or lower data\.window"):
        fetch(cache, remote, 1)
    release(also_used)
    release(used)
    fetch(cache, remote, 1)


def test_a_reader_lets_go_of_what_it_closes(remote: Index, tmp_path: Path) -> None:
    reader = Reader(remote, cache=Cache(tmp_path, 2 * remote.shards[0].bytes), max_open=1)
    assert [s["__key__"] for s in reader.samples(range(10))] == [f"s{n:04d}" for n in range(10)]


def test_the_bound_counts_unfinished_downloads(remote: Index, tmp_path: Path) -> None:
    cache = Cache(tmp_path, 2 * remote.shards[0].bytes)
    with cache._reserve(tmp_path / "shards" / "other.tmp", remote_shard(remote, 0)):
        fetch(cache, remote, 1)
        fetch(cache, remote, 2)
        assert names(tmp_path) == {"other.tmp", remote.shards[2].sha256}
    fetch(cache, remote, 3)
    assert names(tmp_path) == {remote.shards[2].sha256, remote.shards[3].sha256}, "a dead download goes first"


def test_a_wrong_sha256_leaves_nothing(remote: Index, tmp_path: Path) -> None:
    path = f"/bucket/train/{remote.shards[0].name}"
    filesystem = fsspec.filesystem("memory")
    content = bytearray(filesystem.cat(path))
    content[600] ^= 1
    filesystem.pipe(path, bytes(content))
    with pytest.raises(ShardError, match=r"shard-000000\.tar has sha256 .* the index says .* upload"):
        fetch(Cache(tmp_path, MEGABYTE), remote, 0)
    assert names(tmp_path) == set()


@pytest.mark.parametrize(("change", "message"), [(b"more", "has more than the"), (-512, "it ended after")])
def test_a_wrong_length_leaves_nothing(remote: Index, tmp_path: Path, change: bytes | int, message: str) -> None:
    path = f"/bucket/train/{remote.shards[0].name}"
    filesystem = fsspec.filesystem("memory")
    content = filesystem.cat(path)
    filesystem.pipe(path, content + change if isinstance(change, bytes) else content[:change])
    with pytest.raises(ShardError, match=message):
        fetch(Cache(tmp_path, MEGABYTE, Patience(attempts=1)), remote, 0)
    assert names(tmp_path) == set()


def test_a_missing_shard_is_named(remote: Index, tmp_path: Path) -> None:
    fsspec.filesystem("memory").rm(f"/bucket/train/{remote.shards[0].name}")
    with pytest.raises(ShardError, match=r"memory://bucket/train/shard-000000\.tar is missing"):
        fetch(Cache(tmp_path, MEGABYTE), remote, 0)


@pytest.mark.processes
def test_a_process_killed_while_it_fetches_leaves_the_next_one_in_peace(
    server: tuple[str, Counter[str]], tmp_path: Path
) -> None:
    url, _ = server
    write_split(tmp_path / "train", (3,))
    index = load_index(f"{url}/train")
    cache = Cache(tmp_path / "cache", 2 * index.shards[0].bytes)
    process = os.fork()
    if process == 0:
        try:
            with cache._reserve(
                tmp_path / "cache" / "shards" / f"{index.shards[0].sha256}.tmp", remote_shard(index, 0)
            ):
                os.kill(os.getpid(), signal.SIGKILL)
        finally:
            os._exit(1)
    os.waitpid(process, 0)
    assert names(tmp_path / "cache") == {f"{index.shards[0].sha256}.tmp"}
    fetch(cache, index, 0)
    assert names(tmp_path / "cache") == {index.shards[0].sha256}


def test_a_reader_waits_for_the_room_that_downloads_ahead_take(remote: Index, tmp_path: Path) -> None:
    cache = Cache(tmp_path, remote.shards[0].bytes)
    ahead = cache._reserve(tmp_path / "shards" / "ahead.tmp", remote_shard(remote, 1))
    reader = threading.Thread(target=fetch, args=(cache, remote, 0))
    reader.start()
    time.sleep(0.1)
    assert names(tmp_path) == {"ahead.tmp"}
    release(ahead)
    reader.join(10)
    assert names(tmp_path) == {remote.shards[0].sha256}


@pytest.mark.processes
def test_what_forked_processes_do_is_counted(tmp_path: Path) -> None:
    cache = Cache(tmp_path, MEGABYTE)
    context = multiprocessing.get_context("fork")

    def count() -> None:
        for _ in range(100):
            cache.counters.add(hits=1, waited_s=0.5)

    processes = [context.Process(target=count) for _ in range(3)]
    threads = [threading.Thread(target=count) for _ in range(3)]
    workers: list[Any] = [*processes, *threads]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    counts = cache.counters.counts()
    assert (counts.hits, counts.waited_s, counts.shards) == (600, 300, 0)
    assert counts.words().startswith("0 files fetched (0 MB), 600 found in the cache")


def test_a_damaged_cached_file_is_fetched_again(remote: Index, tmp_path: Path) -> None:
    cache = Cache(tmp_path, MEGABYTE)
    fetch(cache, remote, 0)
    os.truncate(tmp_path / "shards" / remote.shards[0].sha256, 10)
    fetch(cache, remote, 0)
    assert (tmp_path / "shards" / remote.shards[0].sha256).stat().st_size == remote.shards[0].bytes


def test_a_full_disk_is_named(remote: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module.os, "posix_fallocate", full)
    with pytest.raises(ShardError, match=r"no room for .* \(No space left on device\): .*MMPRETRAIN_CACHE") as told:
        fetch(Cache(tmp_path, MEGABYTE), remote, 0)
    assert ending_of(told.value) is Ending.disk_full, "the shards are as they should be"
    assert names(tmp_path) == set()


def test_prefetch_fetches_in_the_background_and_survives_failures(remote: Index, tmp_path: Path) -> None:
    fsspec.filesystem("memory").rm(f"/bucket/train/{remote.shards[1].name}")
    cache = pickle.loads(pickle.dumps(Cache(tmp_path, MEGABYTE)))
    cache.prefetch([remote_shard(remote, number) for number in (0, 1)])
    cache.prefetch([remote_shard(remote, number) for number in (2, 3, 4)])
    wanted = {shard.sha256 for shard in remote.shards} - {remote.shards[1].sha256}
    deadline = time.monotonic() + 20
    while names(tmp_path) != wanted and time.monotonic() < deadline:
        time.sleep(0.01)
    assert names(tmp_path) == wanted


def test_a_hash_that_is_a_path_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ShardError, match="no valid sha256"):
        Cache(tmp_path, MEGABYTE).open(Remote("memory://bucket/train/a.tar", 3, "../../../outside"))


@pytest.mark.parametrize(
    "path",
    [
        "pipe:touch {canary}",
        "pipe://touch {canary}",
        "file:///etc/passwd",
        "local://etc",
        "simplecache::http://127.0.0.1/x",
        "memory://a::file:///etc/passwd",
        "ssh://host/path",
        "s3:bucket",
        "https://host/x?sig=secret",
    ],
)
def test_other_schemes_are_refused(path: str, tmp_path: Path) -> None:
    path = path.format(canary=tmp_path / "canary")
    assert any("data.path" in problem for problem in DataConfig("x", path).problems())
    with pytest.raises(
        ShardError,
        match=r"is not read: (use a folder, or one plain URL of http://|no file can be)",
    ):
        Cache(tmp_path, MEGABYTE).open(Remote(path, 3, "0" * 64))
    assert not (tmp_path / "canary").exists()


@pytest.mark.parametrize(
    "path", ["data/digits", "/data/x", "s3://bucket/x", "https://host/x", "hf://datasets/a/b", "a b"]
)
def test_folders_and_plain_urls_are_accepted(path: str) -> None:
    assert remote_problem(path) is None


def test_a_store_whose_plugin_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(ShardError, match=r"cannot be fetched: .*[Ii]nstall"):
        Cache(tmp_path, MEGABYTE).open(Remote("az://bucket/x.tar", 3, "0" * 64))


def test_the_folder_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MMPRETRAIN_CACHE", "/local/disk")
    assert cache_folder() == Path("/local/disk")
    monkeypatch.delenv("MMPRETRAIN_CACHE")
    assert cache_folder() == Path.home() / ".cache" / "mmpretrain"
