"""Stopping the ranks of a local run: what Ctrl-C and SIGTERM to the launcher mean."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

import submitit

# Tools that start the launcher hand signals on beside the terminal: two so close together are one.
AGAIN_AFTER_S = 1.0
REMIND_S = 1.0  # ranks that still start do not listen yet


class Stopping:
    """What signals to the launcher mean for local ranks: the first one asks them to save a checkpoint and stop, a
    second Ctrl-C or SIGTERM raises KeyboardInterrupt here. asked: whether the first one came."""

    def __init__(self, job: submitit.Job[None]) -> None:
        self.job = job
        self._since: float | None = None
        self._reminded = 0.0

    @property
    def asked(self) -> bool:
        """Whether the ranks are to stop."""
        return self._since is not None

    def __call__(self, number: int, _: FrameType | None) -> None:
        """Handle a signal."""
        now = time.monotonic()
        if self._since is None:
            self._since = now
        elif number != signal.SIGUSR2 and now - self._since > AGAIN_AFTER_S:
            raise KeyboardInterrupt

    def remind(self) -> None:
        """Tell the ranks, again and again: which of them listen already is not known from here."""
        if self.asked and time.monotonic() - self._reminded > REMIND_S:
            self._reminded = time.monotonic()
            send(self.job, signal.SIGTERM)


@contextmanager
def handled_by(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Ctrl-C, SIGTERM and SIGUSR2 are its matter; not what a shell ignores for what it starts in the background."""
    wanted = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2)
    numbers = [number for number in wanted if signal.getsignal(number) is not signal.SIG_IGN]
    before = [signal.signal(number, handler) for number in numbers]
    try:
        yield
    finally:
        for number, earlier in zip(numbers, before, strict=True):
            signal.signal(number, earlier)


def send(job: submitit.Job[None], number: signal.Signals) -> None:
    """A signal to the local controller, if it is still there."""
    with suppress(ProcessLookupError):
        os.kill(int(job.job_id), number)
