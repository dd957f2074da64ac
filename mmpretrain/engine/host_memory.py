"""The C library's memory: that large tensors give theirs back at once."""

from __future__ import annotations

import ctypes
import os

LARGE = 2**20  # bytes from which on memory comes from the system itself, and goes back to it
_THRESHOLD = -3  # M_MMAP_THRESHOLD of mallopt(3)


def give_large_back() -> bool:
    """Have glibc take memory for large tensors from the system apart, so that none of it stays when they are gone.

    By itself it does so only until the first of them is freed, and then raises its threshold step by step up to 32 MB:
    gathered weights that come and go leave gaps that nothing fits into. Whoever has set a threshold in the environment
    keeps it. Whether it was set now; False where there is another C library.
    """
    if "MALLOC_MMAP_THRESHOLD_" in os.environ or "mmap_threshold" in os.environ.get("GLIBC_TUNABLES", ""):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and bool(mallopt(_THRESHOLD, LARGE))
