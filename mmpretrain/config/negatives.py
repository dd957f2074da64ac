"""Config of the hard negatives of one modality (no torch here)."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

MOST = 64  # per sample: each goes through the encoder


@dataclass
class NegativesConfig:
    """Where samples hold hard negatives of a text: texts that look right for the sample and are wrong, as captions with
    two words exchanged. A sample may have none."""

    member: list[str] = dataclasses.field(default_factory=list)
    """What follows the key in the names of the members that hold them: JSON (a list of strings, or with ``field`` an
    object with one) or plain text, one per line. Empty: ``NAME.negatives.json`` or ``NAME.negatives.txt``, or what
    ``shards build`` makes of a column, ``NAME_negatives.json`` or ``NAME_negatives.txt``."""

    field: list[str] = dataclasses.field(default_factory=list)
    """In JSON members: the keys whose values (a string or a list of strings) are hard negatives. Empty: the member is
    a string or a list of strings itself."""

    count: int = 1
    """How many of a sample's are used in a step, 1 to 64; of more, so many are drawn for each stream position, and a
    sample with fewer has fewer."""

    def members_of(self, name: str) -> list[str]:
        """``member``, or its default for the modality ``name``."""
        return list(self.member) or [f"{name}{sign}negatives.{end}" for sign in "._" for end in ("json", "txt")]

    def problems(self, key: str) -> list[str]:
        """What is wrong with this entry, called ``key``, one sentence each."""
        found = [] if 1 <= self.count <= MOST else [f"{key}.count is {self.count}: it must be 1 to {MOST}"]
        repeated = sorted({way for way in self.member if self.member.count(way) > 1})
        return found + [f"{key}.member names {way} twice" for way in repeated]
