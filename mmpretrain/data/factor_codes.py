"""Several factors in one label: a mixed-radix code, the first factor most significant (no torch here)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np


def encode_factors(values: Mapping[str, np.ndarray], factors: Mapping[str, int]) -> np.ndarray:
    """int64 [n]: the code of ``values`` (factor -> int [n] in [0, classes)); factors: name -> classes, in order."""
    return np.ravel_multi_index([values[name] for name in factors], tuple(factors.values()))


def decode_factors(codes: np.ndarray, factors: Mapping[str, int]) -> dict[str, np.ndarray]:
    """Factor -> int64 [n], from ``codes`` int64 [n]: what :func:`encode_factors` put in."""
    return dict(zip(factors, np.unravel_index(codes, tuple(factors.values())), strict=True))
