"""Whether a score changed, by the paired bootstrap: the same samples, measured before and after.

As in bootstrap.py samples are drawn again by a fixed seed, here with both of their outcomes, so that what makes a
sample hard for either model cancels out. The interval is the middle 95 % of the differences.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Mapping
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from threadpoolctl import threadpool_limits

from mmpretrain.evaluation.bootstrap import LEVELS, Measured, drawn_medians, draws
from mmpretrain.files import replace_bytes

_NAMES = "names"
# Of fewer units even a change of all of them to one side is no rarer than 5 % by chance alone: 2 / 2^5 = 0.06.
LEAST = 6


def change(before: Measured, after: Measured) -> tuple[float, float] | None:
    """(low, high) of ``after`` - ``before``; None where they are not of the same samples, or of fewer than LEAST that
    are drawn."""
    if before.outcomes.shape != after.outcomes.shape or before.median != after.median:
        return None
    size = len(before.outcomes)
    alone = np.arange(size)  # a group of its own for every sample
    first, second = (alone if score.groups is None else score.groups for score in (before, after))
    if not np.array_equal(first, second):
        return None
    units = np.unique(first, return_inverse=True)[1]
    count = int(units.max()) + 1 if size else 0
    if count < LEAST:
        return None
    found = np.concatenate([_differences(before, after, weights, units) for weights in draws(count)])
    low, high = np.percentile(found, LEVELS)
    return (float(low), float(high)) if np.isfinite([low, high]).all() else None


def _differences(before: Measured, after: Measured, weights: np.ndarray, units: np.ndarray) -> np.ndarray:
    """[r], in each of the draws. weights: [r, u]; units: of each sample, [n]."""
    if before.median:
        return drawn_medians(after, weights, units) - drawn_medians(before, weights, units)
    totals = np.bincount(units, after.outcomes - before.outcomes)
    # As in bootstrap.py, whose last digits do not depend on the number of threads either.
    with threadpool_limits(1, user_api="blas"):
        return (weights @ totals) / (weights @ np.bincount(units))


def save_outcomes(path: Path, measured: Mapping[str, Measured]) -> None:
    """Write the outcomes of single samples, so that a later process compares with them."""
    arrays: dict[str, np.ndarray] = {_NAMES: np.array(list(measured), dtype=np.str_)}
    for number, score in enumerate(measured.values()):
        arrays[f"{number}.outcomes"] = score.outcomes
        arrays[f"{number}.facts"] = np.array([score.value, float(score.median)])
        if score.groups is not None:
            arrays[f"{number}.groups"] = score.groups
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
    replace_bytes(path, buffer.getvalue())


def load_outcomes(path: Path) -> dict[str, Measured]:
    """What :func:`save_outcomes` wrote; nothing is unpickled. Raises OSError, and ValueError for a damaged file."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            found = {}
            for number, name in enumerate(arrays[_NAMES].tolist()):
                groups = arrays.get(f"{number}.groups")
                value, median = arrays[f"{number}.facts"].tolist()
                found[name] = Measured(value, arrays[f"{number}.outcomes"], groups, bool(median))
            return found
    except (BadZipFile, zlib.error, KeyError, EOFError) as error:
        raise ValueError(f"{path} is damaged ({error})") from error
