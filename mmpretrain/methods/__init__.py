"""One file per method; each reads like its paper's equations. Importing this package loads no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mmpretrain.config.implementation import implementation
from mmpretrain.config.methods.names import METHODS

if TYPE_CHECKING:
    from mmpretrain.methods.base import Method


def method_class(name: str) -> type[Method]:
    """The class that carries out the settings called ``name``. Raises KeyError for an unknown name."""
    found: type[Method] = implementation(METHODS[name].implementation)
    return found
