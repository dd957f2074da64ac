"""What a build noticed, counted by reason, with the first few examples of each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

MOST_EXAMPLES = 10
LONGEST_EXAMPLE = 200


class Findings:
    """Reasons with their counts and first examples; as many examples are kept as a person reads."""

    def __init__(self) -> None:
        self._found: dict[str, tuple[int, list[str]]] = {}

    def __bool__(self) -> bool:
        return bool(self._found)

    def __iter__(self) -> Iterator[tuple[str, int, list[str]]]:
        for reason, (count, examples) in self._found.items():
            yield reason, count, examples

    def add(self, reason: str, example: str = "", count: int = 1) -> None:
        """Count a reason once more (or ``count`` times). example: which sample, file or column."""
        before, examples = self._found.get(reason, (0, []))
        if example and len(examples) < MOST_EXAMPLES:
            examples = [*examples, printable(example)]
        self._found[reason] = (before + count, examples)

    def merge(self, other: Mapping[str, Any]) -> None:
        """Add what :meth:`to_json` of other findings gave."""
        for reason, entry in other.items():
            count, examples = self._found.get(reason, (0, []))
            self._found[reason] = (count + entry["count"], (examples + entry["examples"])[:MOST_EXAMPLES])

    def to_json(self) -> dict[str, Any]:
        """Reason -> {"count", "examples"}."""
        return {reason: {"count": count, "examples": examples} for reason, count, examples in self}


def left_out(findings: Findings) -> str:
    """`` that can be used (REASON: COUNT, first EXAMPLE)``, '' if nothing was noticed."""
    said = [f"{why}: {n}, first {examples[0]}" if examples else f"{why}: {n}" for why, n, examples in findings]
    return f" that can be used ({'; '.join(said[:3])})" if said else ""


def printable(text: str) -> str:
    """A name as one line of UTF-8, shortened in the middle."""
    line = "".join(c if c.isprintable() else repr(c)[1:-1] for c in text).encode("utf-8", "backslashreplace").decode()
    if len(line) <= LONGEST_EXAMPLE:
        return line
    half = LONGEST_EXAMPLE // 2
    return f"{line[:half]} … {line[-half:]}"
