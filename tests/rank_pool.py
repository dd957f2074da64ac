"""Living gloo ranks that run functions: importing what they need costs seconds, calling them costs milliseconds.

    with RankPool(2) as pool:
        results = pool.run(function, arguments, timeout=120)   # one result per rank

Ranks are forked from one process that has the slow imports behind it (multiprocessing's fork server), whatever the
number of ranks and pools.

Functions travel by cloudpickle; module-level ones by name, so the ranks import the test's module themselves. A call
that raises or hangs on any rank ends the pool, because the process group behind it may be out of step.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import faulthandler
import multiprocessing
import os
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing import Pipe, forkserver
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Self

import cloudpickle
import psutil
import pytest

from launcher.ranks.ports import free_port

LOG_TAIL = 4000
MOST_THREADS = 60  # each process group that lives on has three, and gloo's wake up 100 times a second
IMPORTED_ONCE = ["tests.rank_imports"]

FIXED = {
    "OMP_NUM_THREADS": "1",
    "DS_ACCELERATOR": "cpu",
    "PYTHONWARNINGS": "ignore::FutureWarning,ignore::DeprecationWarning",
}

Ranks = Callable[..., list[Any]]  # the type of the fixture ``ranks`` in conftest.py


class RankError(AssertionError):
    """A call failed on at least one rank; the message names the rank and shows its traceback or stacks."""


@dataclass
class _Rank:
    number: int
    process: BaseProcess
    connection: Connection
    log: Path

    @property
    def name(self) -> str:
        return f"rank {self.number}"

    @property
    def alive(self) -> bool:
        """Whether it runs: that it has ended, multiprocessing hears a moment later, from the process that forked it."""
        try:
            state = psutil.Process(self.process.pid).status()
        except psutil.NoSuchProcess:
            return False
        return state != psutil.STATUS_ZOMBIE and self.process.is_alive()

    def send(self, number: signal.Signals) -> None:
        assert self.process.pid, "only started ranks are kept"
        os.kill(self.process.pid, number)

    def exit_code(self) -> int | None:
        self.process.join(0.2)
        return self.process.exitcode

    def log_tail(self) -> str:
        return self.log.read_text(errors="replace")[-LOG_TAIL:]


class RankPool:
    """``world_size`` processes with one gloo group; see the module's docstring."""

    def __init__(self, world_size: int, grace_s: float = 5.0) -> None:
        self.world_size = world_size
        self.grace_s = grace_s  # for the others once one rank has failed, and for ending
        self._idle = True
        self._folder = tempfile.TemporaryDirectory(prefix="ranks-")
        _start_fork_server()
        port = free_port()
        self._ranks: list[_Rank] = []
        atexit.register(self.close)  # Python would wait for ranks that wait for it
        for number in range(world_size):
            self._ranks.append(self._start(number, port))

    @property
    def alive(self) -> bool:
        """Whether the pool can take another call: somebody may have killed a rank between two."""
        return bool(self._ranks) and all(rank.alive for rank in self._ranks)

    @property
    def crowded(self) -> bool:
        """Whether so many process groups of earlier calls live on that they keep the machine busy."""
        return any(psutil.Process(rank.process.pid).num_threads() > MOST_THREADS for rank in self._ranks)

    def run(self, function: Callable[..., Any], args: Sequence[Any], timeout: float) -> list[Any]:
        """``function(*args)`` on every rank; its results in the order of ranks.

        timeout: seconds. Raises RankError when a rank raises, dies or does not answer in time.
        """
        call = cloudpickle.dumps((sys.path, cloudpickle.dumps((function, tuple(args)))))
        for rank in self._ranks:
            rank.connection.send_bytes(call)
        answers = self._collect(time.monotonic() + timeout)
        # Ranks that only wait for a failed one would hide what went wrong.
        problems = self._failures(answers) or self._hangs(answers, timeout)
        if problems:
            self.close()
            raise RankError("\n".join(problems))
        return [answers[number][1] for number in range(self.world_size)]

    def close(self) -> None:
        """End every rank; the pool cannot be used afterwards."""
        for rank in self._ranks:
            rank.connection.close()
        for rank in self._ranks:
            rank.process.join(self.grace_s if self._idle else 0.1)
            rank.process.kill()
            rank.process.join()
        self._ranks = []
        self._folder.cleanup()
        atexit.unregister(self.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _start(self, number: int, port: int) -> _Rank:
        ours, theirs = Pipe()
        log = Path(self._folder.name, f"rank-{number}.log")
        variables = {
            "RANK": str(number),
            "LOCAL_RANK": str(number),
            "WORLD_SIZE": str(self.world_size),
            "LOCAL_WORLD_SIZE": str(self.world_size),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
            "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        }
        arguments = (theirs, f"{self._folder.name}/store", log, os.environ | FIXED | variables)
        process = multiprocessing.get_context("forkserver").Process(target=_serve, args=arguments)
        process.start()
        theirs.close()
        return _Rank(number, process, ours, log)

    def _collect(self, deadline: float) -> dict[int, tuple[bool, Any]]:
        """Answers by rank number, (succeeded, result or traceback); ranks that died or were too late are absent."""
        self._idle = False
        answers: dict[int, tuple[bool, Any]] = {}
        waiting = {rank.connection: rank.number for rank in self._ranks}
        while waiting and (ready := wait(list(waiting), max(0.0, deadline - time.monotonic()))):
            for connection in ready:
                assert isinstance(connection, Connection)
                number, succeeded = waiting.pop(connection), False
                with contextlib.suppress(EOFError, ConnectionError):
                    answers[number] = cloudpickle.loads(connection.recv_bytes())
                    succeeded = answers[number][0]
                if not succeeded:
                    deadline = min(deadline, time.monotonic() + self.grace_s)
        self._idle = not waiting
        return answers

    def _failures(self, answers: dict[int, tuple[bool, Any]]) -> list[str]:
        found = []
        for rank in self._ranks:
            if rank.number in answers:
                succeeded, trace = answers[rank.number]
                found += [] if succeeded else [f"{rank.name} raised:\n{trace}"]
            elif (code := rank.exit_code()) is not None:
                found.append(f"{rank.name} died with exit code {code}:\n{rank.log_tail()}")
        return found

    def _hangs(self, answers: dict[int, tuple[bool, Any]], timeout: float) -> list[str]:
        hung = [rank for rank in self._ranks if rank.number not in answers]
        for rank in hung:
            rank.send(signal.SIGUSR1)  # faulthandler writes the stacks to the log
        time.sleep(0.5 if hung else 0)
        return [f"{rank.name} hung (limit {timeout:g} s); its stacks:\n{rank.log_tail()}" for rank in hung]


def _start_fork_server() -> None:
    """Start it, unless it runs, with the variables that must be there before the first import."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in FIXED.items():
            patch.setenv(name, value)
        multiprocessing.get_context("forkserver").set_forkserver_preload(IMPORTED_ONCE)
        forkserver.ensure_running()


def _serve(connection: Connection, store: str, log: Path, environment: dict[str, str]) -> None:
    """Answer calls until the other end closes."""
    _die_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with log.open("wb") as output:
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)
    faulthandler.register(signal.SIGUSR1, all_threads=True)
    os.environ.clear()
    os.environ.update(environment)
    import torch
    import torch.distributed as dist

    torch.set_num_threads(1)
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=size)
    with contextlib.suppress(EOFError, ConnectionError):
        while True:
            connection.send_bytes(_answer(connection.recv_bytes()))
    # Skips the destructors of the group: its peers may be gone already.
    os._exit(0)


def _answer(call: bytes) -> bytes:
    try:
        sys.path[:], rest = cloudpickle.loads(call)
        function, args = cloudpickle.loads(rest)
        return cloudpickle.dumps((True, function(*args)))
    except BaseException:
        return cloudpickle.dumps((False, traceback.format_exc()))


def _die_with_parent() -> None:
    pr_set_pdeathsig = 1
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)
