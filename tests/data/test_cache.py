"""Remote shards: whole, verified, bounded, fetched once for all processes of a node, from plain URLs only."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
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
    shard = index.shards[number]
    release(cache.open(index.path(shard), shard))


def test_reads_through_the_cache_and_fetches_once(
    remote: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetched = []
    copy = module._copy

    def counted(url: str, *rest: Any) -> str:
        fetched.append(url)
        return copy(url, *rest)

    monkeypatch.setattr(module, "_copy", counted)
    for _ in range(2):
        reader = Reader(remote, cache=Cache(tmp_path / "cache", MEGABYTE))
        samples = list(reader.samples(range(10)))
    assert [s["__key__"] for s in samples] == [f"s{n:04d}" for n in range(10)]
    assert samples[0]["__url__"] == "memory://bucket/train/shard-000000.tar"
    files = [file for shard in remote.shards for file in remote.files(shard)]
    assert len(files) == 10 and sorted(fetched) == sorted(url for url, _ in files)
    assert names(tmp_path / "cache") == {content.sha256 for _, content in files}


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
    used = cache.open(remote.path(remote.shards[0]), remote.shards[0])
    for number in (1, 2, 3):
        fetch(cache, remote, number)
    assert names(tmp_path) == {remote.shards[0].sha256, remote.shards[3].sha256}
    also_used = cache.open(remote.path(remote.shards[4]), remote.shards[4])
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
    with cache._reserve(tmp_path / "shards" / "other.tmp", "", remote.shards[0]):
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
def test_a_wrong_length_leaves_nothing(
    remote: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: bytes | int, message: str
) -> None:
    monkeypatch.setattr(module, "ATTEMPTS", 1)
    path = f"/bucket/train/{remote.shards[0].name}"
    filesystem = fsspec.filesystem("memory")
    content = filesystem.cat(path)
    filesystem.pipe(path, content + change if isinstance(change, bytes) else content[:change])
    with pytest.raises(ShardError, match=message):
        fetch(Cache(tmp_path, MEGABYTE), remote, 0)
    assert names(tmp_path) == set()


def test_a_missing_shard_is_named(remote: Index, tmp_path: Path) -> None:
    fsspec.filesystem("memory").rm(f"/bucket/train/{remote.shards[0].name}")
    with pytest.raises(ShardError, match=r"memory://bucket/train/shard-000000\.tar is missing"):
        fetch(Cache(tmp_path, MEGABYTE), remote, 0)


def test_a_lost_connection_is_tried_again(remote: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failures = [ConnectionResetError("reset"), TimeoutError("slow")]
    copy = module._copy
    naps: list[float] = []

    def flaky(*arguments: Any) -> str:
        if failures:
            raise failures.pop()
        return copy(*arguments)

    monkeypatch.setattr(module, "_copy", flaky)
    monkeypatch.setattr(module.time, "sleep", naps.append)
    fetch(Cache(tmp_path, MEGABYTE), remote, 0)
    assert len(naps) == 2
    failures += [ConnectionResetError("reset")] * 3
    with pytest.raises(ShardError, match=r"after 3 attempts \(ConnectionResetError"):
        fetch(Cache(tmp_path, MEGABYTE), remote, 1)


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
    with pytest.raises(ShardError, match=r"no room for .* \(No space left on device\): .*MMPRETRAIN_CACHE"):
        fetch(Cache(tmp_path, MEGABYTE), remote, 0)
    assert names(tmp_path) == set()


def test_prefetch_fetches_in_the_background_and_survives_failures(remote: Index, tmp_path: Path) -> None:
    fsspec.filesystem("memory").rm(f"/bucket/train/{remote.shards[1].name}")
    cache = pickle.loads(pickle.dumps(Cache(tmp_path, MEGABYTE)))
    cache.prefetch([(remote.path(shard), shard) for shard in remote.shards[:2]])
    cache.prefetch([(remote.path(shard), shard) for shard in remote.shards[2:]])
    wanted = {shard.sha256 for shard in remote.shards} - {remote.shards[1].sha256}
    deadline = time.monotonic() + 20
    while names(tmp_path) != wanted and time.monotonic() < deadline:
        time.sleep(0.01)
    assert names(tmp_path) == wanted


def test_a_hash_that_is_a_path_is_refused(remote: Index, tmp_path: Path) -> None:
    shard = replace(remote.shards[0], sha256="../../../outside")
    with pytest.raises(ShardError, match="no valid sha256"):
        Cache(tmp_path, MEGABYTE).open("memory://bucket/train/a.tar", shard)


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
    ],
)
def test_other_schemes_are_refused(path: str, remote: Index, tmp_path: Path) -> None:
    path = path.format(canary=tmp_path / "canary")
    assert any("data.path" in problem for problem in DataConfig("x", path).problems())
    with pytest.raises(ShardError, match="is not read: use a folder, or one plain URL of http://"):
        Cache(tmp_path, MEGABYTE).open(path, remote.shards[0])
    assert not (tmp_path / "canary").exists()


@pytest.mark.parametrize(
    "path", ["data/digits", "/data/x", "s3://bucket/x", "https://host/x", "hf://datasets/a/b", "a b"]
)
def test_folders_and_plain_urls_are_accepted(path: str) -> None:
    assert remote_problem(path) is None


def test_a_store_whose_plugin_is_missing_is_named(remote: Index, tmp_path: Path) -> None:
    with pytest.raises(ShardError, match=r"cannot be fetched: .*[Ii]nstall"):
        Cache(tmp_path, MEGABYTE).open("az://bucket/x.tar", remote.shards[0])


def test_the_folder_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MMPRETRAIN_CACHE", "/local/disk")
    assert cache_folder() == Path("/local/disk")
    monkeypatch.delenv("MMPRETRAIN_CACHE")
    assert cache_folder() == Path.home() / ".cache" / "mmpretrain"
