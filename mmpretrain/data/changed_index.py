"""Shards that have changed since a run's checkpoint, and going on with them when that is asked for (no torch here).

The stream is a function of (index, seed, position). After a change it goes on at the same position as the stream of the
new index: as deterministic as before, at any number of ranks, but of the epoch that is under way some samples may be
seen again and others not at all; the next epoch is whole.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mmpretrain.config.root import Config
from mmpretrain.data.index import Index, ShardError
from mmpretrain.data.sources import open_data

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


def other_scores(config: Config, measured: Mapping[str, str]) -> str | None:
    """A sentence if scores that decide, or that those of the start are compared with, would be of other data now.

    measured: split -> fingerprint of its index, of the splits that the run has measured on. A split that cannot be read
    is no matter of this check.
    """
    if not (config.finetune.before or config.evaluation.best.score):
        return None
    for split, known in measured.items():
        try:
            index = open_data(config.data, split).index
        except (OSError, ValueError, ShardError):
            continue
        if not index.is_known_as(known):
            key = "finetune.before" if config.finetune.before else "evaluation.best.score"
            return (
                f"the split {split!r} in {config.data.place} is not the one that this run has measured on (index"
                f" {known[:SHOWN]} -> {index.fingerprint[:SHOWN]}), and {key} compares the scores: restore it"
            )
    return None
