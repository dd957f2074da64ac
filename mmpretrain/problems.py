"""How a model that cannot be built is reported (no torch here, not shipped)."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


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
    """The error's text on one line, or its type if it has none."""
    return " ".join(str(error).split())[:300] or type(error).__name__


def cannot_open(key: str, source: str, error: Exception) -> UnusableError:
    """The error for a folder or Hub id that does not open."""
    return UnusableError(
        [f"{key}: cannot open {source!r} ({one_line(error)}); give a local folder, or check the id and the network"]
    )
