"""Whether every key of a new split comes once: by hashes in a file, so that a billion of them fill no memory."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from pathlib import Path

import numpy as np

from mmpretrain.data.writing import BuildError
from shards.rewrite.samples import SplitSamples
from shards.sources.findings import printable
from shards.sources.keys import key_hash

CHUNK = 1 << 16

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how many are done, and of how many."""


def refuse_repeated_keys(samples: SplitSamples, scratch: Path, advice: str, progress: Progress) -> None:
    """Raise BuildError, with ``advice``, if two samples would have the same key. scratch: a file to write to."""
    hashes = np.memmap(scratch, np.uint64, "w+", shape=(len(samples),))
    keys = samples.new_keys()
    for start in range(0, len(samples), CHUNK):
        progress("keys", start, len(samples))
        hashes[start : start + CHUNK] = [key_hash(key) for key in islice(keys, CHUNK)]
    hashes.sort()
    twice: set[int] = set()
    for start in range(0, len(samples), CHUNK):
        part = hashes[start : start + CHUNK + 1]
        twice.update(part[1:][part[1:] == part[:-1]][:CHUNK].tolist())
        if len(twice) > CHUNK:
            break
    del hashes
    scratch.unlink()
    repeated = _first_repeated(samples, twice) if twice else None
    if repeated is not None:
        raise BuildError(f"the key {printable(repeated)!r} comes more than once: {advice}")


def _first_repeated(samples: SplitSamples, twice: set[int]) -> str | None:
    """The first key that comes again, of those with these hashes; None if only the hashes are the same."""
    seen: set[str] = set()
    for key in samples.new_keys():
        if key_hash(key) in twice:
            if key in seen:
                return key
            seen.add(key)
    return None
