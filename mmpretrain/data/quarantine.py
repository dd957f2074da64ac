"""What happens to samples that cannot be used: a log line each, and an end to the run when there are too many."""

from __future__ import annotations

import json
import logging
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from mmpretrain.data.batch import Replacement
from mmpretrain.endings import Ending
from mmpretrain.words import without_secrets

GRACE = 1000
ENOUGH = 20  # samples of a source, to say that most of it is bad

logger = logging.getLogger(__name__)


class BadDataError(Exception):
    """Too many samples could not be used; the message has the counts, the last cause and the log, and no secrets."""

    ending = Ending.bad_data

    def __init__(self, message: str) -> None:
        super().__init__(without_secrets(message))


class Quarantine:
    """The log of replaced samples and the budget for them, of one rank.

    log: file that gets one JSON object per replaced sample (fields of :class:`Replacement`), None for no file.
    max_fraction: share of replaced samples that is accepted. The first GRACE samples share one budget, so that
    a few bad ones at the start do not end a run whose data is good.
    """

    def __init__(self, log: Path | None, max_fraction: float) -> None:
        self.log, self.max_fraction = log, max_fraction
        self.seen = self.replaced = 0
        self._of_source: dict[str, list[int]] = {}  # name -> [samples seen, replaced]
        self._named: set[str] = set()

    def record(self, seen: int, replaced: Sequence[Replacement], sources: Mapping[str, int] | None = None) -> None:
        """Count ``seen`` samples, of which ``replaced`` were bad. Raises BadDataError if the budget is exceeded.

        sources: of a mixture, how many of the samples are of each source. One of which most is bad is named, even where
        the run as a whole can bear it.
        """
        self.seen += seen
        self.replaced += len(replaced)
        self._count_sources(replaced, sources or {})
        if not replaced:
            return
        if self.log is not None:
            _append(self.log, replaced)
        if self.replaced > self.max_fraction * max(self.seen, GRACE):
            last = replaced[-1]
            raise BadDataError(
                f"{self.replaced} of {self.seen} samples could not be used, more than data.max_bad_fraction="
                f"{self.max_fraction} allows (counted over at least {GRACE}); the last is {last.key!r} in {last.shard}:"
                f" {last.error}; {self._worst()}{f'all are listed in {self.log}' if self.log else 'no log was kept'}:"
                " raise data.max_bad_fraction, with which the same command goes on from the last checkpoint, or repair"
                " the shards, after which it names what goes on with these"
            )

    def _count_sources(self, replaced: Sequence[Replacement], sources: Mapping[str, int]) -> None:
        bad = Counter(entry.source for entry in replaced)
        for name, count in sources.items():
            of_source = self._of_source.setdefault(name, [0, 0])
            of_source[0] += count
            of_source[1] += bad[name]
            if name not in self._named and of_source[0] >= ENOUGH and 2 * of_source[1] > of_source[0]:
                self._named.add(name)
                logger.warning(
                    "most of source %s cannot be used: %d of %d samples so far; others of it stand in for them",
                    *(name, of_source[1], of_source[0]),
                )

    def _worst(self) -> str:
        """Of a mixture, the source with the largest share of bad samples."""
        if not self._of_source:
            return ""
        name, (seen, bad) = max(self._of_source.items(), key=lambda entry: entry[1][1] / max(1, entry[1][0]))
        return f"source {name} is the worst, {bad} of {seen}; "


def _append(log: Path, replaced: Sequence[Replacement]) -> None:
    """One write per line in append mode: lines of several ranks do not mix."""
    descriptor = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        for entry in replaced:
            line = {key: value for key, value in asdict(entry).items() if key != "source" or value}
            os.write(descriptor, (json.dumps(line) + "\n").encode())
    finally:
        os.close(descriptor)
