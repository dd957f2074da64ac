"""Shards that have changed since a run's checkpoint, and going on with them when that is asked for (no torch here).

The stream is a function of (index, seed, position). After a change it goes on at the same position as the stream of the
new index: as deterministic as before, at any number of ranks, but of the epoch that is under way some samples may be
seen again and others not at all; the next epoch is whole.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mmpretrain.data.index import Index

KEY = "data.accept_index"
SHOWN = 12  # characters of a fingerprint


@dataclass(frozen=True)
class ChangedIndex:
    """before, now: fingerprints. samples: of the index now. accepted: whether the config takes it."""

    before: str
    now: str
    samples: int
    accepted: bool

    @property
    def token(self) -> str:
        """What accepts it."""
        return f"{KEY}={self.now[:SHOWN]}"

    def words(self, position: int) -> str:
        """What going on from a position of the stream means."""
        return (
            f"the shards have changed since the checkpoint (index {self.before[:SHOWN]} -> {self.now[:SHOWN]}) and"
            f" {KEY} takes them as they are: the stream goes on at position {position} in the order of the new ones, in"
            f" epoch {position / self.samples:.4g} of {self.samples} samples; until that epoch ends some samples may be"
            " seen again and others not at all"
        )

    def facts(self, step: int) -> dict[str, Any]:
        """For manifests and the status: what was accepted, and after how many steps."""
        return {"step": step, "before": self.before, "now": self.now}


def changed_index(index: Index, known: str | None, accept: str | None) -> ChangedIndex | None:
    """Whether ``index`` is another one than that of a checkpoint; None if not, or if the checkpoint names none.

    known: the checkpoint's fingerprint. accept: the first characters of the fingerprint that may be there instead.
    """
    if known is None or index.is_known_as(known):
        return None
    accepted = accept is not None and index.fingerprint.startswith(accept)
    return ChangedIndex(known, index.fingerprint, len(index), accepted)
