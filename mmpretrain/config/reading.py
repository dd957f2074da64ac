"""What reading does with shards and samples that are not as they should be (no torch here)."""

from __future__ import annotations

from enum import StrEnum


class Verify(StrEnum):
    """When a shard's sha256 is compared with the index."""

    first_use = "first_use"
    """When a rank, or one of its loader processes, opens the shard for the first time, and again when the file has
    changed since."""

    never = "never"
    """Not at all."""


class Incomplete(StrEnum):
    """What happens to samples that the index shows to be unusable: a modality or the label is missing, empty, too
    large, there twice, or of another kind."""

    refuse = "refuse"
    """Missing members end the run before it starts; the rest counts as unreadable while it runs
    (``data.max_bad_fraction``)."""

    drop = "drop"
    """They are left out of the data set, and counted in the plan."""


class Unread(StrEnum):
    """What happens where a folder of shards holds files that are no shards but look like data: compressed tars, tars
    in sub-folders."""

    refuse = "refuse"
    """The run does not start, and the message names them."""

    ignore = "ignore"
    """They are passed over, with a note."""
