"""Signals that must not end what is under way, and those that stop local ranks."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager

# What ends a local rank at once, as Ctrl-C would.
ABORT = signal.SIGUSR1


@contextmanager
def ignored(number: signal.Signals) -> Iterator[None]:
    """Ignore a signal inside the block; processes started there go on ignoring it."""
    before = signal.signal(number, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(number, before)
