"""OpenMMLab's old package has our import name: say so before anything is imported from it."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path
from typing import NoReturn

NAME, DISTRIBUTION = "mmpretrain", "mmpretrain-contrastive"
HOME = Path(__file__).resolve().parent.parent  # a clone, or site-packages/mmpretrain_contrastive
OURS = next((parent / NAME for parent in (HOME, HOME.parent) if (parent / NAME).is_dir()), HOME / NAME)


def require_own_package() -> None:
    """Exit with status 2 and one line on stderr unless Python finds this project's ``mmpretrain`` first."""
    found = _location()
    if found is None or os.path.realpath(found) != str(OURS):
        _refuse(found)
    if not (OURS / "registration.py").is_file() or "mmpretrain.registration" not in (OURS / "__init__.py").read_text():
        _exit(f"another package named {NAME} was installed over this project's in {OURS}: "
              f"`pip uninstall {NAME}`, then install {DISTRIBUTION} again")  # fmt: skip


def require_this_project() -> None:
    """As require_own_package, but another copy of the project will do: the caller puts its own first."""
    found = _location()
    if found is None or not _is_this_project(Path(found).resolve().parent):
        require_own_package()


def _is_this_project(folder: Path) -> bool:
    """Whether a folder that holds a ``mmpretrain`` is a clone of this project, or where its wheel was installed."""
    return any((folder / home / "launcher" / "submit.py").is_file() for home in ("", "mmpretrain_contrastive"))


def _refuse(found: str | None) -> NoReturn:
    if found is None:
        _exit(f"{NAME} is not importable: add {OURS.parent} to PYTHONPATH, or pip install it")
    _exit(
        f"another package named {NAME} is found first: {found} (this project's is {OURS});"
        f" remove it from PYTHONPATH, or `pip uninstall {NAME}`"
    )


def _exit(message: str) -> NoReturn:
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
