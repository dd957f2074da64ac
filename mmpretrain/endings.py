"""The ways in which a run can end, each with its exit code (no torch here: launcher and ranks both say them)."""

from __future__ import annotations

import errno
from enum import Enum

FULL = (errno.ENOSPC, errno.EDQUOT)  # of a disk, and of somebody's share of it


class Ending(Enum):
    """How a run ended: a word for status.json, and the exit code of ranks and launcher.

    Codes are those of BSD's sysexits.h where one fits, so that a script can tell what to do from the number alone.
    """

    completed = 0
    """The release is written."""

    failed = 1
    """An error that none of the others names."""

    usage = 2
    """The command line could not be read; nothing was started."""

    bad_data = 65
    """Shards are missing, damaged or have changed, or too many samples cannot be used."""

    no_checkpoint = 66
    """The run had checkpoints and none of them can be used."""

    unhealthy = 69
    """A node or device failed the check before training."""

    hung = 70
    """A rank stopped answering while the others waited for it."""

    lost = 71
    """A rank, a node or the controller of the ranks was killed from outside, or ran out of memory."""

    disk_full = 74
    """Nothing more could be written."""

    preempted = 75
    """Stopped by a signal after a checkpoint was saved: the same command goes on."""

    diverged = 76
    """The loss or its gradient became nan or infinite."""

    setup = 78
    """A line of the profile's setup failed, or what a node offers is not what the plan says."""

    interrupted = 130
    """Ended at once by a second Ctrl-C, or cancelled before it had begun."""

    @property
    def code(self) -> int:
        """The exit code."""
        return int(self.value)


def ending_of(error: BaseException) -> Ending:
    """What an exception means for the run: its ``ending``, or that of what caused it, if either has one."""
    while True:
        found = getattr(error, "ending", None)
        if isinstance(found, Ending):
            return found
        if isinstance(error, OSError) and error.errno in FULL:
            return Ending.disk_full
        if error.__cause__ is None:
            return Ending.failed
        error = error.__cause__


def ending_named(name: object) -> Ending | None:
    """The ending that a status.json names; None where it names none, as those of earlier versions do."""
    return Ending.__members__.get(name) if isinstance(name, str) else None


def ending_with(code: int) -> Ending:
    """What the exit code of a rank that left no reason stands for; ``failed`` for codes that are not those of ranks."""
    others = (Ending.completed, Ending.usage, Ending.preempted)
    return next((ending for ending in Ending if ending.code == code and ending not in others), Ending.failed)
