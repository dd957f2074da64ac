"""How a model that cannot be built is reported (no torch here, not shipped)."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from pathlib import Path

from mmpretrain.words import shortened

_HUB_ID = re.compile(r"(\w[\w.-]*/)?\w[\w.-]{0,95}", re.ASCII)


class UnusableError(ValueError):
    """A model's config cannot work; ``problems`` holds one sentence each."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = list(problems)
        super().__init__("\n".join(self.problems))


def nearest(word: str, known: Iterable[str]) -> str:
    """`` (did you mean ...?)`` with the closest of the known words, or nothing."""
    match = difflib.get_close_matches(word, sorted(known), n=1, cutoff=0.5)
    return f" (did you mean {match[0]}?)" if match else ""


def one_line(error: Exception) -> str:
    """The error's text on one line, shortened in its middle, or its type if it has none."""
    return shortened(str(error)) or type(error).__name__


def cannot_open(key: str, source: str, error: Exception) -> UnusableError:
    """The error for a folder or Hub id that does not open. key: where it is named."""
    if missing := missing_folder(source):
        return UnusableError([f"{key}: cannot open {source!r}: {missing}"])
    return UnusableError(
        [f"{key}: cannot open {source!r} ({one_line(error)}); give a local folder, or check the id and the network"]
    )


def missing_folder(source: str) -> str | None:
    """What to say of a ``source`` that is meant to be a folder and is none; None for a folder and for a Hub id."""
    path = Path(source)
    if path.is_dir() or (_HUB_ID.fullmatch(source) and not path.exists()):
        return None
    if path.exists():
        return "it is a file: name the folder that it lies in"
    where = "" if path.is_absolute() else f" in {Path.cwd()}"
    return f"there is no such folder{where}, and it is no id of the Hub (NAME or OWNER/NAME): check the path"
