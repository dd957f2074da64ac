"""OpenMMLab's old package has our import name: say so before anything is imported from it."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path
from typing import NoReturn

NAME = "mmpretrain"


def require_own_package() -> None:
    """Exit with status 2 and one line on stderr unless Python finds this project's ``mmpretrain`` first."""
    ours = Path(__file__).resolve().parent.parent / NAME
    found = _location()
    if found is not None and os.path.realpath(found) == str(ours):
        return
    _refuse(found, ours)


def require_this_project() -> None:
    """As require_own_package, but another checkout's ``mmpretrain`` will do: the caller puts its own first."""
    found = _location()
    if found is None or not (Path(found).resolve().parent / "launcher" / "submit.py").is_file():
        require_own_package()


def _refuse(found: str | None, ours: Path) -> NoReturn:
    if found is None:
        message = f"{NAME} is not importable: add {ours.parent} to PYTHONPATH, or pip install it"
    else:
        message = (
            f"another package named {NAME} is found first: {found} (this project's is {ours});"
            f" remove it from PYTHONPATH, or `pip uninstall {NAME}`"
        )
    print(f"error: {message}", file=sys.stderr)
    raise SystemExit(2)


def _location() -> str | None:
    """Folder (or file) that ``import mmpretrain`` would load, without importing it."""
    try:
        spec = importlib.util.find_spec(NAME)
    except ValueError:
        return None
    if spec is None:
        return None
    if spec.submodule_search_locations:
        return next(iter(spec.submodule_search_locations))
    return spec.origin
