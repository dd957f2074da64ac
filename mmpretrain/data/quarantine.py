"""What happens to samples that cannot be used: a log line each, and an end to the run when there are too many."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from mmpretrain.data.batch import Replacement

GRACE = 1000


class BadDataError(Exception):
    """Too many samples could not be used; the message has the counts, the last cause and the log."""


class Quarantine:
    """The log of replaced samples and the budget for them, of one rank.

    log: file that gets one JSON object per replaced sample (fields of :class:`Replacement`), None for no file.
    max_fraction: share of replaced samples that is accepted. The first GRACE samples share one budget, so that
    a few bad ones at the start do not end a run whose data is good.
    """

    def __init__(self, log: Path | None, max_fraction: float) -> None:
        self.log, self.max_fraction = log, max_fraction
        self.seen = self.replaced = 0

    def record(self, seen: int, replaced: Sequence[Replacement]) -> None:
        """Count ``seen`` samples, of which ``replaced`` were bad. Raises BadDataError if the budget is exceeded."""
        self.seen += seen
        self.replaced += len(replaced)
        if not replaced:
            return
        if self.log is not None:
            _append(self.log, replaced)
        if self.replaced > self.max_fraction * max(self.seen, GRACE):
            last = replaced[-1]
            raise BadDataError(
                f"{self.replaced} of {self.seen} samples could not be used, more than data.max_bad_fraction="
                f"{self.max_fraction} allows (counted over at least {GRACE}); the last is {last.key!r} in {last.shard}:"
                f" {last.error}; {f'all are listed in {self.log}' if self.log else 'no log was kept'}: repair the"
                " shards or raise data.max_bad_fraction"
            )


def _append(log: Path, replaced: Sequence[Replacement]) -> None:
    """One write per line in append mode: lines of several ranks do not mix."""
    descriptor = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        for entry in replaced:
            os.write(descriptor, (json.dumps(asdict(entry)) + "\n").encode())
    finally:
        os.close(descriptor)
