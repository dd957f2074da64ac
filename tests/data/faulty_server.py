"""A store on loopback that fails as it is told: it has the files of a folder, or what another server answers."""

from __future__ import annotations

import http.client
import re
import socket
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

Fault = Callable[["Answer"], None]


@dataclass
class Answer:
    """What a request would get, before a fault changes it."""

    handler: BaseHTTPRequestHandler
    status: int
    headers: dict[str, str]
    body: bytes

    def send(self, upto: int | None = None) -> None:
        """Head and body; of the body only the first ``upto`` bytes."""
        self.handler.send_response(self.status)
        for name, value in self.headers.items():
            self.handler.send_header(name, value)
        self.handler.end_headers()
        if self.handler.command != "HEAD":
            self.handler.wfile.write(self.body[:upto])
            self.handler.wfile.flush()

    def hang_up(self) -> None:
        """Break the connection."""
        self.handler.close_connection = True
        self.handler.connection.shutdown(socket.SHUT_RDWR)


def status(code: int, retry_after: float | None = None) -> Fault:
    """An error instead."""

    def fault(answer: Answer) -> None:
        headers = {} if retry_after is None else {"Retry-After": str(retry_after)}
        Answer(answer.handler, code, {"Content-Length": "0", **headers}, b"").send()

    return fault


def dropped(after: int) -> Fault:
    """The connection breaks after so many bytes of the body."""

    def fault(answer: Answer) -> None:
        answer.send(after)
        answer.hang_up()

    return fault


def truncated(after: int) -> Fault:
    """Fewer bytes, and a head that says so."""

    def fault(answer: Answer) -> None:
        body = answer.body[:after]
        Answer(answer.handler, answer.status, {**answer.headers, "Content-Length": str(len(body))}, body).send()

    return fault


def late(seconds: float) -> Fault:
    """The same answer, later."""

    def fault(answer: Answer) -> None:
        time.sleep(seconds)
        answer.send()

    return fault


def wrong(answer: Answer) -> None:
    """A byte is another one."""
    body = bytearray(answer.body)
    body[len(body) // 2] ^= 1
    Answer(answer.handler, answer.status, answer.headers, bytes(body)).send()


def refused(answer: Answer) -> None:
    """A reset before any answer."""
    answer.hang_up()


@dataclass
class Store:
    """The running server.

    url: its address. faults: end of a path -> what happens to its requests, one after another; then all is well.
    always: the same for every request. ranges: whether parts can be asked for. requests: how often each path was asked
    for by GET.
    """

    folder: Path | None
    upstream: str | None
    ranges: bool = True
    url: str = ""
    faults: dict[str, list[Fault]] = field(default_factory=lambda: defaultdict(list))
    always: dict[str, Fault] = field(default_factory=dict)
    requests: Counter[str] = field(default_factory=Counter)
    asked: list[tuple[str, str | None]] = field(default_factory=list)
    ended: threading.Event = field(default_factory=threading.Event)

    def silent(self, after: int) -> Fault:
        """Nothing more comes after so many bytes of the body; the connection stays."""

        def fault(answer: Answer) -> None:
            answer.send(after)
            self.ended.wait()

        return fault

    def dripping(self, size: int, pause_s: float) -> Fault:
        """The body comes in parts of ``size`` bytes, with pauses."""

        def fault(answer: Answer) -> None:
            answer.send(0)
            for start in range(0, len(answer.body), size):
                answer.handler.wfile.write(answer.body[start : start + size])
                if self.ended.wait(pause_s):
                    return

        return fault

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        """One request."""
        path = handler.path.partition("?")[0]
        answer = self._passed_on(handler) if self.upstream else self._read(handler, path)
        fault: Fault = Answer.send
        if handler.command == "GET":
            self.requests[path] += 1
            self.asked.append((path, handler.headers.get("Range")))
            fault = next((f for end, f in self.always.items() if path.endswith(end)), fault)
            fault = next((list_.pop(0) for end, list_ in self.faults.items() if path.endswith(end) and list_), fault)
        fault(answer)

    def _read(self, handler: BaseHTTPRequestHandler, path: str) -> Answer:
        file = (self.folder or Path()) / path.lstrip("/")
        if not file.is_file():
            return Answer(handler, 404, {"Content-Length": "0"}, b"")
        body, code, headers = file.read_bytes(), 200, {}
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", handler.headers.get("Range") or "") if self.ranges else None
        if asked:
            first, last = int(asked[1]), int(asked[2] or len(body) - 1)
            if first >= len(body):
                return Answer(handler, 416, {"Content-Length": "0"}, b"")
            headers = {"Content-Range": f"bytes {first}-{min(last, len(body) - 1)}/{len(body)}"}
            body, code = body[first : last + 1], 206
        return Answer(handler, code, {"Content-Length": str(len(body)), **headers}, body)

    def _passed_on(self, handler: BaseHTTPRequestHandler) -> Answer:
        connection = http.client.HTTPConnection((self.upstream or "").removeprefix("http://"), timeout=20)
        body = handler.rfile.read(int(handler.headers.get("Content-Length") or 0))
        connection.request(handler.command, handler.path, body, dict(handler.headers))
        with connection.getresponse() as response:
            content = response.read()
            headers = {k: v for k, v in response.getheaders() if k.lower() not in ("connection", "transfer-encoding")}
        connection.close()
        return Answer(handler, response.status, {**headers, "Content-Length": str(len(content))}, content)


@contextmanager
def served(folder: Path | None = None, upstream: str | None = None) -> Iterator[Store]:
    """A store with the files of ``folder``, or with what the server at ``upstream`` has."""
    store = Store(folder, upstream)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_one_request(self) -> None:
            try:
                super().handle_one_request()
            except OSError:  # the other side has hung up
                self.close_connection = True

        def log_message(self, *_: Any) -> None:
            pass

    for method in ("GET", "HEAD", "PUT", "POST", "DELETE"):
        setattr(Handler, f"do_{method}", lambda self: store.answer(self))

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    store.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=partial(server.serve_forever, poll_interval=0.01))
    thread.start()
    try:
        yield store
    finally:
        store.ended.set()
        server.shutdown()
        server.server_close()
        thread.join()
