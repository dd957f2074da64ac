"""Ranks find rank 0, whoever listens at the agreed port."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from launcher.ranks.ports import free_port
from mmpretrain.distributed import meeting
from mmpretrain.distributed.meeting import MeetingError, Place, met


def meet(place: Place, size: int = 2, limit_s: float = 20.0) -> list[bytes]:
    """What each of ``size`` ranks, as threads, reads in the store from the one before it."""
    everybody = threading.Barrier(size)

    def rank(number: int) -> bytes:
        with met(place, number, size, limit_s) as store:
            store.set(f"{number}", f"from {number}")
            read = bytes(store.get(f"{(number - 1) % size}"))
            everybody.wait(limit_s)
        return read

    with ThreadPoolExecutor(size) as pool:
        return list(pool.map(rank, range(size)))


def says(answer: bytes) -> Callable[[socket.socket], None]:
    """Somebody who answers this and hangs up."""

    def answers(caller: socket.socket) -> None:
        caller.sendall(answer)
        caller.close()

    return answers


STRANGERS: dict[str, Callable[[socket.socket], None]] = {
    "silent": lambda caller: None,
    "a web server": says(b"HTTP/1.1 400 Bad Request\r\n\r\n"),
    "another run": says(json.dumps({"attempt": "another", "port": 1}).encode() + b"\n"),
    "another start, of another version": says(b'["attempt"]\n'),
}


@contextlib.contextmanager
def taken(port: int, behave: Callable[[socket.socket], None]) -> Iterator[None]:
    """Inside, somebody listens at the port."""
    callers = []

    def serve(listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                callers.append(listener.accept()[0])
                behave(callers[-1])

    with socket.create_server(("", port)) as listener:
        threading.Thread(target=serve, args=(listener,), daemon=True).start()
        yield
        listener.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize("stranger", STRANGERS)
def test_a_taken_port_is_passed_over(stranger: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meeting, "ANSWER_S", 0.3)
    place = Place("127.0.0.1", free_port(), "mine")
    with taken(place.port, STRANGERS[stranger]):
        assert meet(place) == [b"from 1", b"from 0"]


def test_two_runs_with_the_same_port_do_not_meet_one_another() -> None:
    """The second one's ranks would have joined the first one's."""
    port = free_port()
    with ThreadPoolExecutor(2) as pool:
        runs = [pool.submit(meet, Place("127.0.0.1", port, name), 3) for name in ("one", "two")]
        assert all(run.result() == [b"from 2", b"from 0", b"from 1"] for run in runs)


def test_the_port_is_free_again_afterwards() -> None:
    place = Place("127.0.0.1", free_port(), "mine")
    meet(place)
    socket.create_server(("", place.port)).close()


def test_one_rank_needs_nobody() -> None:
    with met(Place("127.0.0.1", 0), 0, 1, 1.0) as store:
        store.set("a", "b")
        assert store.get("a") == b"b"


def test_who_finds_nobody_says_where_it_looked() -> None:
    port = free_port()
    said = f"rank 0 did not answer on 127.0.0.1 at port {port}"
    with pytest.raises(MeetingError, match=said), met(Place("127.0.0.1", port), 1, 2, 0.3):
        pass
