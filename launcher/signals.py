"""Signals that must not end what is under way."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def ignored(number: signal.Signals) -> Iterator[None]:
    """Ignore a signal inside the block; processes started there go on ignoring it."""
    before = signal.signal(number, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(number, before)
