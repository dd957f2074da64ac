"""Words of messages: long lists and long causes made short, commands that a shell reads as they are meant."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Iterator
from typing import Any

LONGEST_CAUSE = 300  # characters
_GAP = " [...] "


def listed(items: Iterable[object], most: int = 8, between: str = ", ") -> str:
    """``a, b, c and 37 more``: at most ``most`` of the items, and how many are left out."""
    words = [str(item) for item in items]
    if len(words) <= most + 1:  # "and 1 more" is no shorter than the last word
        return between.join(words)
    return f"{between.join(words[:most])} and {len(words) - most} more"


def shortened(text: str, longest: int = LONGEST_CAUSE) -> str:
    """``text`` on one line; of a longer one the middle is left out, for the fix stands at its end."""
    line = " ".join(text.split())
    if len(line) <= longest:
        return line
    head = (longest - len(_GAP)) // 2
    tail = longest - len(_GAP) - head
    return f"{line[:head]}{_GAP}{line[-tail:]}"


def command(*words: object) -> str:
    """A command to copy into a shell: what has spaces or signs of the shell is quoted."""
    return shlex.join(map(str, words))


def without_secrets(text: str) -> str:
    """``text`` with passwords and queries of its URLs, which may be signatures, as ``***``."""
    text = re.sub(r"([A-Za-z][\w+.-]*://)[^/\s'\"]*@", r"\1***@", text)
    return re.sub(r"([A-Za-z][\w+.-]*://[^\s'\"?]+)\?[^\s'\")>]+", r"\1?***", text)


def texts_in(value: Any) -> Iterator[str]:
    """Every text in lists and dictionaries, however deep."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from texts_in(inner)
