"""What numbers depend on beside models and data (no torch here)."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

import mmpretrain

PACKAGES = ("torch", "transformers", "tokenizers", "sentence-transformers", "scikit-learn", "numpy", "pillow")


def versions() -> dict[str, str]:
    """Package -> version, of those that are installed."""
    found = {"mmpretrain": mmpretrain.__version__, "python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
