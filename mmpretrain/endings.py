"""The ways in which a run can end, each with its exit code (no torch here: launcher and ranks both say them)."""

from __future__ import annotations

from enum import Enum


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
    """Ended at once by a second Ctrl-C."""

    @property
    def code(self) -> int:
        """The exit code."""
        return int(self.value)


def ending_of(error: BaseException) -> Ending:
    """What an exception means for the run: its ``ending``, if its class has one."""
    found = getattr(error, "ending", Ending.failed)
    return found if isinstance(found, Ending) else Ending.failed
