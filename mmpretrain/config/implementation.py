"""From a name to what carries it: settings, which know no torch, name their implementation."""

from __future__ import annotations

import importlib
from functools import cache
from typing import Any


@cache
def implementation(name: str) -> Any:
    """The class or function called ``package.module.NAME``; its module is imported when it is first asked for.

    Raises ModuleNotFoundError or AttributeError for a name of nothing.
    """
    module, _, attribute = name.rpartition(".")
    return getattr(importlib.import_module(module), attribute)
