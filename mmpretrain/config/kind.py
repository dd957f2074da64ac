"""The kinds of modalities (no torch here)."""

from __future__ import annotations

from enum import StrEnum


class Kind(StrEnum):
    """What the bytes of a modality are. A sequence is a list of vectors, one per time step."""

    image = "image"
    text = "text"
    vector = "vector"
    sequence = "sequence"
