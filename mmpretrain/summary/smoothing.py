"""The running mean that curves of pictures and pages are drawn with."""

from __future__ import annotations

import numpy as np


def smooth(values: np.ndarray) -> np.ndarray:
    """Running mean of ``values`` [n] over the last n / 40 of them (fewer at the start); NaNs are skipped."""
    window = max(1, len(values) // 40)
    known = np.isfinite(values)
    sums = np.cumsum(np.concatenate([[0.0], np.where(known, values, 0.0)]))
    counts = np.cumsum(np.concatenate([[0], known]))
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(ends - window, 0)
    count = counts[ends] - counts[starts]
    return np.where(count > 0, (sums[ends] - sums[starts]) / np.maximum(count, 1), np.nan)
