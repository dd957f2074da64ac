"""The wish to stop, set by a signal handler and read at the step boundary."""

from __future__ import annotations

_requested = False


class PreemptedError(Exception):
    """Training stopped at a step boundary because of a signal, after all ranks saved a checkpoint together."""


def request_preemption() -> None:
    """Ask for a checkpoint and an end at the next step boundary. Safe inside a signal handler."""
    global _requested
    _requested = True


def preemption_requested() -> bool:
    """Whether this process was asked to stop; all ranks must agree before anybody acts on it."""
    return _requested
