"""Samples that cannot be read: left out of the embeddings, up to the share that ``--max-bad-fraction`` allows."""

from __future__ import annotations

import logging

from mmpretrain.data.batch import Batch
from mmpretrain.data.index import Index
from mmpretrain.data.quarantine import BadDataError

log = logging.getLogger(__name__)


class LeftOut:
    """The budget of one command. samples: how many there are to embed; allowed: share of them that may be left out.

    A process counts what it leaves out itself, to end early; what decides is the whole, once all shards are there.
    So neither more ranks nor repeating a command that was ended makes the budget larger.
    """

    def __init__(self, samples: int, allowed: float) -> None:
        self.samples, self.allowed = samples, allowed
        self.count = 0

    def note(self, batch: Batch) -> None:
        """Log and count what a batch lacks. Raises BadDataError if this process alone has left out too many."""
        for entry in batch.replaced:
            log.warning("left out: sample %r in %s: %s", entry.key, entry.shard, entry.error)
        self.count += len(batch.replaced)
        if batch.replaced:
            last = batch.replaced[-1]
            self._judge(self.count, f"the last is {last.key!r} in {last.shard}: {last.error}")

    def judge(self, made: Index) -> None:
        """Raises BadDataError if the finished shards lack too many."""
        self._judge(self.samples - len(made), f"{made.folder} lacks them, each was logged")

    def _judge(self, count: int, which: str) -> None:
        if count > self.allowed * self.samples:
            raise BadDataError(
                f"{count} of {self.samples} samples could not be used, more than --max-bad-fraction {self.allowed:g}"
                f" allows; {which}: repair the shards or raise --max-bad-fraction"
            )
