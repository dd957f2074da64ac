"""How ranks find one another: rank 0 opens a store, and says at the agreed port where it is.

The agreed port may be taken by the time that rank 0 gets there, by another run of ours too, so that whoever answers
must say which start of which run it belongs to. Rank 0 takes the first of some ports that is free; the others ask at
each until the right one answers.
"""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch.distributed as dist

PORTS = 16  # tried from the agreed one on
ANSWER_S = 2.0  # for one who listens at a port to say who it is
LONGEST = 4096  # bytes of what is read from whoever answers
PAUSE_S, LONGEST_PAUSE_S = 0.1, 1.0


class MeetingError(RuntimeError):
    """The ranks did not find one another; the message says who waited where."""


@dataclass(frozen=True)
class Place:
    """Where ranks meet. host, port: of rank 0, as agreed. attempt: what no other start of any run has."""

    host: str
    port: int
    attempt: str = ""

    @property
    def ports(self) -> list[int]:
        """The agreed one, and those that take its place; an agreed 0 stands for any that is free."""
        return [self.port + k for k in range(PORTS) if self.port + k < 2**16] if self.port else [0]


@contextmanager
def met(place: Place, rank: int, size: int, limit_s: float) -> Iterator[dist.Store]:
    """The store of all ranks. Leave the block when every rank has used it: rank 0 answers no newcomer after that.

    Raises MeetingError after ``limit_s`` seconds, or when rank 0 finds no port.
    """
    limit = timedelta(seconds=limit_s)
    if rank != 0:
        port = _ask(place, limit_s)
        yield dist.TCPStore(place.host, port, size, False, limit, wait_for_workers=False)
        return
    store = dist.TCPStore(place.host, 0, size, True, limit, wait_for_workers=False)
    if size == 1:
        yield store
        return
    with _listening(place) as listener:
        answer = json.dumps({"attempt": place.attempt, "port": store.port}).encode() + b"\n"
        threading.Thread(target=_answer, args=(listener, answer), daemon=True).start()
        try:
            yield store
        finally:
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)  # closing alone would leave the thread waiting, and the port taken


def _listening(place: Place) -> socket.socket:
    """Rank 0's ear, at the first port that is free."""
    for port in place.ports:
        try:
            if socket.has_dualstack_ipv6():
                return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=1024)
            return socket.create_server(("", port), backlog=1024)
        except OSError as error:
            taken = error
    raise MeetingError(
        f"none of the ports {place.ports[0]} to {place.ports[-1]} is free on {socket.gethostname()} ({taken.strerror}):"
        " start the run again"
    )


def _answer(listener: socket.socket, answer: bytes) -> None:
    """Tell whoever asks, until the listener is closed."""
    while True:
        try:
            caller, _ = listener.accept()
        except OSError:
            return
        with contextlib.suppress(OSError), caller:
            caller.settimeout(ANSWER_S)
            caller.sendall(answer)


def _ask(place: Place, limit_s: float) -> int:
    """The port of rank 0's store."""
    end, pause = time.monotonic() + limit_s, PAUSE_S
    while time.monotonic() < end:
        for port in place.ports:
            found = _heard(place, port)
            if found is not None:
                return found
        time.sleep(pause)
        pause = min(2 * pause, LONGEST_PAUSE_S)
    raise MeetingError(
        f"rank 0 did not answer on {place.host} at port {place.port} (or the {PORTS - 1} after it) within"
        f" {limit_s:.0f} s: its log says why, or the nodes cannot reach one another"
    )


def _line(caller: socket.socket) -> bytes:
    """What comes until the line ends, within a time and a length: anybody may be at the other end."""
    end, heard = time.monotonic() + ANSWER_S, b""
    while not heard.endswith(b"\n") and len(heard) < LONGEST and (left := end - time.monotonic()) > 0:
        caller.settimeout(left)
        if not (more := caller.recv(LONGEST)):
            break
        heard += more
    return heard


def _heard(place: Place, port: int) -> int | None:
    """What rank 0 says at this port; None if nobody, or somebody else, is there."""
    try:
        with socket.create_connection((place.host, port), ANSWER_S) as caller:
            said = json.loads(_line(caller))
        return int(said["port"]) if said["attempt"] == place.attempt else None
    except (OSError, ValueError, KeyError, TypeError):
        return None
