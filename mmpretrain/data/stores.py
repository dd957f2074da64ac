"""One object of a store, from an offset on, in pieces, within a bounded time (no torch here).

HTTP is one request whose answer is read as it comes. Other stores of fsspec are asked for one range after another. No
listing is asked for to fetch, so an outdated one cannot mislead; what an object must be, the index says.
"""

from __future__ import annotations

import re
import ssl
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from mmpretrain.config.data import remote_problem
from mmpretrain.data.index_scan import ShardError

PIECE = 1 << 20  # bytes; of HTTP
BLOCK = 8 << 20  # bytes; of other stores
FINAL = ("NoCredentialsError", "PartialCredentialsError", "ProfileNotFound", "InvalidURL")
PASSING = (408, 425, 429)  # of the 4xx
NO_HEAD = (405, 501)  # a server that answers GET alone


@dataclass(frozen=True)
class Remote:
    """A file that an index knows: where it is, its size, and its sha256 in hexadecimal digits."""

    url: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Patience:
    """How long a store is waited for.

    connect_s: for a connection. silence_s: without a byte. slow_s, floor: over this long, at least so many bytes must
    come per second. attempts: failures in a row, with less than a block fetched between them. wait_s: after the first
    of them; it doubles, up to longest_wait_s, which also bounds what a store asks for (Retry-After).
    """

    connect_s: float = 10.0
    silence_s: float = 30.0
    slow_s: float = 60.0
    floor: float = 100_000.0
    attempts: int = 6
    wait_s: float = 0.5
    longest_wait_s: float = 60.0


def pieces(url: str, start: int, stop: int, patience: Patience) -> Iterator[bytes]:
    """The bytes of an object from ``start`` on, at most up to ``stop`` where the store can be told.

    Raises:
        ShardError: the URL is of no kind that is read, or its plugin is missing.
        Exception: whatever else the store raises; see :func:`trouble`.
    """
    filesystem, path = opened(url, patience)
    if url.startswith(("http://", "https://")):
        yield from _streamed(filesystem, url, start, patience)
        return
    while start < stop:
        end = min(start + BLOCK, stop)
        block = _block(filesystem, path, start, end, patience)
        if block:
            yield block
        start += len(block)
        if start < end:  # there is no more; asking on would be an error
            return


def whole(url: str, patience: Patience) -> bytes:
    """A small object of unknown size; raises as :func:`pieces` does."""
    filesystem, path = opened(url, patience)
    if url.startswith(("http://", "https://")):
        return b"".join(_streamed(filesystem, url, 0, patience))
    return _block(filesystem, path, None, None, patience)


def object_size(url: str, patience: Patience) -> int | None:
    """Bytes of an object of a web server, None where that does not tell; raises as :func:`pieces` does."""
    import fsspec

    filesystem, _ = opened(url, patience)
    return fsspec.asyn.sync(filesystem.loop, _told_size, filesystem, url, patience)


@dataclass(frozen=True)
class Trouble:
    """What an exception of a store means. final: trying again would not help. wait_s: what the store asks for."""

    cause: str
    final: bool
    wait_s: float = 0.0


def trouble(error: Exception) -> Trouble:
    """What happened, in words, and whether to try again."""
    status, headers = _answer(error)
    if isinstance(error, FileNotFoundError) or status in (404, 410):
        return Trouble("is missing: upload it again, or build the index again", final=True)
    if isinstance(error, PermissionError) or status in (401, 403):
        return Trouble(f"is refused ({status or 'access denied'}): look at the credentials for it", final=True)
    if status == 416:
        return Trouble("is shorter than the index says: upload it and the index again", final=True)
    cause = f"cannot be fetched ({error!r})"
    named = {type(e).__name__ for e in _causes(error)}
    refused = status is not None and 400 <= status < 500 and status not in PASSING
    final = refused or bool(named & set(FINAL)) or isinstance(error, ImportError | ssl.CertificateError)
    return Trouble(cause, final, _seconds(headers.get("retry-after")))


def opened(url: str, patience: Patience) -> tuple[Any, str]:
    """The file system of a URL, which tries everything once, and the path in it.

    Raises ShardError: the URL is of no kind that is read, or its plugin is missing.
    """
    problem = remote_problem(url)
    if problem is not None:
        raise ShardError(f"{url} {problem}")
    import fsspec

    try:
        if not url.startswith("s3://"):
            return fsspec.core.url_to_fs(url)
        once = {"total_max_attempts": 1}  # who waits, and how often, is decided here
        limits = {"connect_timeout": patience.connect_s, "read_timeout": patience.silence_s, "retries": once}
        filesystem, path = fsspec.core.url_to_fs(url, config_kwargs=limits)
    except ImportError as error:
        extra = ": pip install 'mmpretrain-contrastive[s3]'" if url.startswith("s3://") else ""
        raise ShardError(f"{url} cannot be fetched: {error}{extra}") from None
    filesystem.retries = 1
    return filesystem, path


def _block(filesystem: Any, path: str, start: int | None, stop: int | None, patience: Patience) -> bytes:
    """One range of an object, or all of it."""
    if not filesystem.async_impl:
        return filesystem.cat_file(path, start=start, end=stop)
    import fsspec

    limit = patience.silence_s + (BLOCK if start is None or stop is None else stop - start) / patience.floor
    return fsspec.asyn.sync(filesystem.loop, filesystem._cat_file, path, start=start, end=stop, timeout=limit)


def _streamed(filesystem: Any, url: str, start: int, patience: Patience) -> Iterator[bytes]:
    import fsspec

    run, loop = fsspec.asyn.sync, filesystem.loop
    answer = run(loop, _asked, filesystem, url, start, patience)
    try:
        since, arrived = time.monotonic(), 0
        skip = start - _offset(answer)  # a store without ranges sends all of it again
        while piece := run(loop, _piece, answer, patience.slow_s):
            yield piece[skip:] if skip else piece
            skip = max(0, skip - len(piece))
            arrived += len(piece)
            passed = time.monotonic() - since
            if passed >= patience.slow_s:
                if arrived < patience.floor * passed:
                    raise TimeoutError(f"too slow: {arrived} bytes in {passed:.3g} s")
                since, arrived = time.monotonic(), 0
    finally:
        loop.call_soon_threadsafe(answer.close)


async def _asked(filesystem: Any, url: str, start: int, patience: Patience) -> Any:
    """The answer, of which the head has been read."""
    session = await filesystem.set_session()
    ranges = {"Range": f"bytes={start}-"} if start else {}
    answer = await session.get(filesystem.encode_url(url), **_options(filesystem, patience, ranges))
    try:
        answer.raise_for_status()
        if _offset(answer) > start:
            raise OSError("the store answered with another range")
    except BaseException:
        answer.close()
        raise
    return answer


async def _told_size(filesystem: Any, url: str, patience: Patience) -> int | None:
    session = await filesystem.set_session()
    options = {"allow_redirects": True, **_options(filesystem, patience, {})}
    async with session.head(filesystem.encode_url(url), **options) as answer:
        if answer.status in NO_HEAD:
            return None
        answer.raise_for_status()
        told = answer.headers.get("Content-Length", "")
        return int(told) if told.isdecimal() else None


def _options(filesystem: Any, patience: Patience, headers: dict[str, str]) -> dict[str, Any]:
    """Of a request: what the file system was told, headers, and how long to wait."""
    import aiohttp

    connect, given = patience.connect_s, dict(filesystem.kwargs)
    timeout = aiohttp.ClientTimeout(None, connect=connect, sock_connect=connect, sock_read=patience.silence_s)
    headers = {**given.pop("headers", {}), "Accept-Encoding": "identity", **headers}
    return {**given, "headers": headers, "timeout": timeout}


def _offset(answer: Any) -> int:
    """Where in the object an answer begins."""
    found = re.match(r"bytes (\d+)-", answer.headers.get("Content-Range", ""))
    return int(found[1]) if found else 0


async def _piece(answer: Any, most_s: float) -> bytes:
    """About PIECE bytes, or what came within ``most_s``; b'' at the end."""
    parts: list[bytes] = []
    size, until = 0, time.monotonic() + most_s
    while size < PIECE and time.monotonic() < until:
        try:
            part = await answer.content.readany()
        except Exception:
            if not parts:
                raise
            part = b""  # what came before counts; the next call raises it again
        if not part:
            break
        parts.append(part)
        size += len(part)
    return b"".join(parts)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__


def _answer(error: Exception) -> tuple[int | None, dict[str, str]]:
    """The status and the headers (names in lower case) of the answer that an exception tells of, if there was one."""
    for cause in _causes(error):
        if isinstance(status := getattr(cause, "status", None), int):  # of aiohttp
            return status, {name.lower(): value for name, value in (getattr(cause, "headers", None) or {}).items()}
        response = getattr(cause, "response", None)
        if isinstance(response, dict):  # of botocore
            facts = response.get("ResponseMetadata", {})
            return facts.get("HTTPStatusCode"), facts.get("HTTPHeaders", {})
    return None, {}


def _seconds(text: str | None) -> float:
    """Of Retry-After; its other form, a date, counts as nothing."""
    try:
        return max(0.0, float(text or 0))
    except ValueError:
        return 0.0
