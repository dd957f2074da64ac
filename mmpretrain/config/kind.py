"""The kinds of modalities (no torch here)."""

from __future__ import annotations

from enum import StrEnum


class Kind(StrEnum):
    """What the bytes of a modality are."""

    image = "image"
    """Pictures of one or three channels."""

    text = "text"
    """Strings, which a tokenizer turns into tokens."""

    vector = "vector"
    """A fixed number of features."""

    sequence = "sequence"
    """A list of vectors, one per time step."""
