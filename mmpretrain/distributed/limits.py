"""How long ranks wait for one another: the time limit of process groups, changed while they live.

A group keeps the limit that it was made with, and groups that libraries make for themselves (DeepSpeed's) have torch's
default, half an hour on gloo. Each collective takes the limit that its group has when the collective is called.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch.distributed as dist
from torch.distributed import distributed_c10d

from mmpretrain.distributed.collectives import Group


def limit_waiting(seconds: float, spared: Collection[Group] = ()) -> None:
    """Let every group of this process, but those ``spared``, wait this long in a collective from now on."""
    if not dist.is_initialized():
        return
    for group in list(distributed_c10d._world.pg_map):
        if not any(group is one for one in spared):
            distributed_c10d._set_pg_timeout(timedelta(seconds=seconds), group)


class Waiting:
    """The limits of a run: ``usual`` seconds from its start on, ``hurried`` inside of steps once :meth:`hurry` was
    called. spared: groups that keep their own."""

    def __init__(self, usual: float, hurried: float, spared: Collection[Group] = ()) -> None:
        self._usual = usual
        self._hurried = min(usual, hurried)
        self._spared = spared
        self._now = usual
        self._set(usual)

    def hurry(self) -> None:
        """From now on: the first step has shown that all ranks are there, and has compiled what is to be compiled."""
        if self._now != self._hurried:
            self._set(self._hurried)

    @contextmanager
    def leisurely(self, at_least: float = 0.0) -> Iterator[None]:
        """Inside: as long as at the start, or ``at_least`` these seconds; for what is no step."""
        before = self._now
        self._set(max(self._usual, at_least))
        try:
            yield
        finally:
            self._set(before)

    def _set(self, seconds: float) -> None:
        self._now = seconds
        limit_waiting(seconds, self._spared)
