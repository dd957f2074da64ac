"""Stores that fail: every fault ends in the right bytes or in one clear error, in bounded time."""

from __future__ import annotations

import dataclasses
import os
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mmpretrain.data.cache import Cache, release
from mmpretrain.data.fetch import read_remote
from mmpretrain.data.index_scan import ShardError
from mmpretrain.data.stores import Patience, Remote
from tests.data.faulty_server import Fault, Store, dropped, late, refused, served, status, truncated, wrong
from tests.data.object_store import BUCKET, object_store

SHARD = "shard-000000.tar"
CONTENT = os.urandom(300_000)
QUICK = Patience(connect_s=2, silence_s=0.25, slow_s=0.2, floor=200_000, attempts=4, wait_s=0.01, longest_wait_s=0.1)

Place = tuple[Store, str]


@pytest.fixture
def http_store(tmp_path: Path) -> Iterator[Place]:
    """The shard on an HTTP server, and the address of its folder."""
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / SHARD).write_bytes(CONTENT)
    with served(tmp_path / "store") as store:
        yield store, store.url


@pytest.fixture(scope="module")
def s3_server() -> Iterator[str]:
    """An S3 server with the shard in it."""
    with object_store({SHARD: CONTENT}) as url:
        yield url


@pytest.fixture
def s3_store(s3_server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    """The shard on an S3 server behind one that fails, and the address of its folder."""
    with served(upstream=s3_server) as store:
        monkeypatch.setenv("AWS_ENDPOINT_URL", store.url)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        import s3fs

        s3fs.S3FileSystem.clear_instance_cache()
        yield store, f"s3://{BUCKET}"
        s3fs.S3FileSystem.clear_instance_cache()


@pytest.fixture
def place(request: pytest.FixtureRequest) -> Place:
    """The store that the test asks for by its parameter."""
    return request.getfixturevalue(request.param)


def remote(folder: str, content: bytes = CONTENT) -> Remote:
    """The shard, as an index knows it."""
    import hashlib

    return Remote(f"{folder}/{SHARD}", len(content), hashlib.sha256(content).hexdigest())


def fetched(cache: Cache, wanted: Remote) -> bytes:
    """Its bytes in the cache."""
    file = cache.open(wanted)
    content = os.pread(file.fileno(), len(CONTENT) + 1, 0)
    release(file)
    return content


FAULTS: dict[str, Callable[[Store], Fault]] = {
    "late": lambda _: late(0.1),
    "500": lambda _: status(500),
    "503": lambda _: status(503, retry_after=0.02),
    "429": lambda _: status(429),
    "reset": lambda _: refused,
    "dropped": lambda _: dropped(100_000),
    "truncated": lambda _: truncated(100_000),
    "wrong": lambda _: wrong,
    "silent": lambda store: store.silent(100_000),
    "silent at once": lambda store: store.silent(0),
    "slow": lambda store: store.dripping(10_000, 0.1),
}
# One of each axis in the normal run; S3 has its own words for errors, and blocks of its own.
QUICKLY = [("http_store", fault) for fault in FAULTS] + [("s3_store", "503"), ("s3_store", "dropped")]
MATRIX = [(place, fault) for place in ("http_store", "s3_store") for fault in FAULTS]


@pytest.mark.processes
@pytest.mark.parametrize(
    ("place", "fault"),
    [pytest.param(*case, marks=() if case in QUICKLY else pytest.mark.slow) for case in MATRIX],
    indirect=["place"],
)
def test_a_fault_that_passes_leaves_the_right_bytes(place: Place, fault: str, tmp_path: Path) -> None:
    store, folder = place
    store.faults[SHARD] = [FAULTS[fault](store), FAULTS[fault](store)] if fault != "wrong" else [wrong]
    cache = Cache(tmp_path / "cache", 1 << 20, QUICK)
    assert fetched(cache, remote(folder)) == CONTENT
    counts = cache.counters.counts()
    assert (counts.shards, counts.hits) == (1, 0)
    # aiohttp itself repeats a request on a connection that turns out to be closed.
    assert counts.retries in {"late": (0,), "wrong": (0,), "reset": (1, 2)}.get(fault, (2,))
    assert fetched(cache, remote(folder)) == CONTENT and cache.counters.counts().hits == 1
    assert os.listdir(tmp_path / "cache" / "shards") == [remote(folder).sha256]


LASTING: dict[str, tuple[Callable[[Store], Fault], str]] = {
    "500": (lambda _: status(500), "after 4 attempts in a row"),
    "dropped": (lambda _: dropped(0), "after 4 attempts in a row"),
    "silent": (lambda store: store.silent(0), "after 4 attempts in a row"),
    "slow": (lambda store: store.dripping(500, 0.1), "after 4 attempts in a row"),
    "wrong": (lambda _: wrong, "has sha256 .* the index says"),
    "403": (lambda _: status(403), r"is refused \(403\)"),
    "404": (lambda _: status(404), "is missing"),
}
LASTING_QUICKLY = [("http_store", fault) for fault in LASTING] + [("s3_store", "403"), ("s3_store", "404")]


@pytest.mark.processes
@pytest.mark.parametrize(
    ("place", "fault"),
    [
        pytest.param(place, fault, marks=() if (place, fault) in LASTING_QUICKLY else pytest.mark.slow)
        for place in ("http_store", "s3_store")
        for fault in LASTING
    ],
    indirect=["place"],
)
def test_a_fault_that_lasts_is_one_error_in_bounded_time(place: Place, fault: str, tmp_path: Path) -> None:
    store, folder = place
    make, message = LASTING[fault]
    store.always[SHARD] = make(store)
    started = time.monotonic()
    with pytest.raises(ShardError, match=message):
        fetched(Cache(tmp_path / "cache", 1 << 20, QUICK), remote(folder))
    assert time.monotonic() - started < 10
    assert store.requests.total() == {"wrong": 2, "403": 1, "404": 1}.get(fault, 4)
    assert os.listdir(tmp_path / "cache" / "shards") == []


def test_a_lost_download_goes_on_where_it_was(http_store: Place, tmp_path: Path) -> None:
    store, folder = http_store
    content = os.urandom(8_000_000)
    (tmp_path / "store" / SHARD).write_bytes(content)
    store.faults[SHARD] = [dropped(4_000_000), truncated(2_000_000), status(500)]
    cache = Cache(tmp_path / "cache", 1 << 24, QUICK)
    release(cache.open(remote(folder, content)))
    starts = [int(asked.removeprefix("bytes=").removesuffix("-")) for _, asked in store.asked if asked]
    assert len(starts) == 3 and 3_000_000 < starts[0] <= 4_000_000 and starts[1:] == [starts[0] + 2_000_000] * 2
    assert cache.counters.counts().fetched_bytes == 8_000_000


def test_a_store_without_ranges_sends_it_again(http_store: Place, tmp_path: Path) -> None:
    store, folder = http_store
    store.ranges = False
    store.faults[SHARD] = [dropped(100_000), dropped(200_000)]
    assert fetched(Cache(tmp_path / "cache", 1 << 20, QUICK), remote(folder)) == CONTENT


def test_retry_after_is_honored_within_the_bound(http_store: Place, tmp_path: Path) -> None:
    store, folder = http_store
    for asked, waited in [(0.3, 0.3), (1000, 0.4)]:
        patience = dataclasses.replace(QUICK, longest_wait_s=0.4)
        store.faults[SHARD] = [status(503, retry_after=asked)]
        started = time.monotonic()
        fetched(Cache(tmp_path / str(asked), 1 << 20, patience), remote(folder))
        assert waited <= time.monotonic() - started < waited + 2


def test_other_lengths_than_that_of_the_index_are_refused(http_store: Place, tmp_path: Path) -> None:
    _, folder = http_store
    cache = Cache(tmp_path / "cache", 1 << 20, QUICK)
    with pytest.raises(ShardError, match="is shorter than the index says"):
        fetched(cache, remote(folder, CONTENT + b"more"))
    with pytest.raises(ShardError, match="has more than the 299000 bytes of the index"):
        fetched(cache, remote(folder, CONTENT[:299_000]))


def test_nobody_at_the_address(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    for host in (f"127.0.0.1:{port}", "no-such-host.invalid"):
        with pytest.raises(ShardError, match=r"cannot be fetched .* after 4 attempts in a row"):
            fetched(Cache(tmp_path / "cache", 1 << 20, QUICK), remote(f"http://{host}"))


def test_passwords_and_signatures_are_not_shown(http_store: Place, tmp_path: Path) -> None:
    store, folder = http_store
    secret = folder.replace("http://", "http://me:hunter2@")
    assert fetched(Cache(tmp_path / "cache", 1 << 20, QUICK), remote(secret)) == CONTENT
    for fault in (404, 403, 500, 400):
        store.always[SHARD] = status(fault)
        signed = Remote(f"{secret}/{SHARD}?sig=hunter2", 5, "0" * 64)
        with pytest.raises(ShardError, match=r"127\.0\.0\.1") as caught:
            fetched(Cache(tmp_path / "cache", 1 << 20, QUICK), signed)
        assert "hunter2" not in str(caught.value)


def test_a_small_file_is_read_through_faults(http_store: Place) -> None:
    store, folder = http_store
    store.faults[SHARD] = [status(503), dropped(1000)]
    assert read_remote(f"{folder}/{SHARD}", QUICK) == CONTENT
    with pytest.raises(FileNotFoundError):
        read_remote(f"{folder}/nothing", QUICK)


@pytest.mark.processes
def test_a_listing_that_is_out_of_date_changes_nothing(s3_store: Place, tmp_path: Path) -> None:
    """fsspec keeps listings; here it has one from before the shard was uploaded, and one from before it grew."""
    import fsspec

    _, folder = s3_store
    cache = Cache(tmp_path / "cache", 1 << 20, QUICK)
    with pytest.raises(ShardError, match="is missing"):
        cache.open(dataclasses.replace(remote(folder), url=f"{folder}/late.tar"))
    filesystem = fsspec.filesystem("s3")
    assert f"{BUCKET}/late.tar" not in filesystem.ls(f"{BUCKET}")
    other = fsspec.filesystem("s3", skip_instance_cache=True)
    for content in (CONTENT[:1000], CONTENT):
        other.pipe(f"{BUCKET}/late.tar", content)
        wanted = dataclasses.replace(remote(folder, content), url=f"{folder}/late.tar")
        assert fetched(cache, wanted) == content


@pytest.mark.processes
def test_missing_credentials_are_said_at_once(s3_store: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(ShardError, match=r"[Cc]redentials"):
        fetched(Cache(tmp_path / "cache", 1 << 20, QUICK), remote(s3_store[1]))
