"""Words for the terminal (no torch here)."""

from __future__ import annotations

from collections.abc import Mapping


def mapping_words(towers: Mapping[str, str]) -> str:
    """Which tower takes which modality, ``left, caption by its tower text``: a tower of the same name is not named."""
    return ", ".join(name if name == tower else f"{name} by its tower {tower}" for name, tower in towers.items())
