"""Config of what all objectives share (no torch here)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Negatives(StrEnum):
    """gather: every rank's samples are negatives for every rank (exact). local: only the rank's own (on request)."""

    gather = "gather"
    local = "local"


@dataclass
class ObjectiveConfig:
    """negatives: where the negatives of contrastive terms come from."""

    negatives: Negatives = Negatives.gather
