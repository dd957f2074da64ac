"""One file per method; each reads like its paper's equations. Importing this package loads no torch."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mmpretrain.methods.base import Method

CLASSES = {
    "clip": "clip.Clip",
    "cmcr": "cmcr.Cmcr",
    "comm": "comm.Comm",
    "cross_self": "cross_self.CrossSelf",
    "factorcl": "factorcl.Factorcl",
    "m3col": "m3col.M3col",
    "mucmm": "mucmm.Mucmm",
    "siglip": "siglip.Siglip",
    "supcon": "supcon.Supcon",
}


def method_class(name: str) -> type[Method]:
    """The class of the method called ``name``. Raises KeyError for an unknown name."""
    module, _, attribute = CLASSES[name].partition(".")
    found: type[Method] = getattr(importlib.import_module(f"{__name__}.{module}"), attribute)
    return found
