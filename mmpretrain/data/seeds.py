"""Seeds that follow from others (no torch here)."""

from __future__ import annotations

import hashlib


def sub_seed(seed: int, position: int, *tags: str | int) -> int:
    """A seed in [0, 2^63): a function of a run's seed, ``position`` and ``tags`` alone."""
    text = repr((seed, position, *tags)).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big") >> 1
