"""The runs that a sweep asks for, as tokens: several values for a key, or a file with a line for each run."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

MOST = 1000  # runs: what a cluster's array holds by default, and more than anybody reads a table of
_RANGE = re.compile(r"(\d+)\.\.(\d+)")
_OPENS, _CLOSES = "[{(", "]})"


class SweepError(ValueError):
    """The tokens of a sweep cannot be read; ``problems`` holds one sentence each."""

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = list(problems)
        super().__init__("\n".join(self.problems))


@dataclass(frozen=True)
class Wanted:
    """A sweep as it was asked for. shared: tokens of all runs. own: for each run the tokens that are its own. typed: as
    the command line has them."""

    shared: tuple[str, ...]
    own: tuple[tuple[str, ...], ...]
    typed: tuple[str, ...] = ()

    @property
    def keys(self) -> list[str]:
        """The keys and groups that some run sets for itself, in the order in which they come."""
        return list(dict.fromkeys(key_of(token) for tokens in self.own for token in tokens))


def wanted(tokens: Sequence[str], file: Path | None, *, several: bool) -> Wanted:
    """The runs that the command line asks for: all combinations of its values, each with every line of ``file``.

    several: whether commas and ``A..B`` in ``tokens`` separate values. Raises SweepError.
    """
    problems: list[str] = []
    swept = [_values(token, problems) if several else [token] for token in tokens]
    shared = [values[0] for values in swept if len(values) == 1]
    axes = [values for values in swept if len(values) > 1]
    problems += _twice([*axes, *([value] for value in shared)], axes)
    lines = _lines(file, problems) if file is not None else [()]
    problems += [] if axes or file is not None or problems else [_ONE]
    problems += _on_both_sides(axes, lines, file)
    count = len(lines)
    for values in axes:
        count *= len(values)
    if count > MOST:
        problems.append(f"the sweep has {count:,} runs, and {MOST} at most are possible: give it in parts")
    if problems:
        raise SweepError(problems)
    own = tuple((*line, *values) for line in lines for values in product(*axes))
    return Wanted(tuple(shared), own, tuple(tokens))


_ONE = (
    "a sweep of one run: give a key several values, as optim.lr=1e-3,3e-4 or seed=0..4, or a line for each run in a"
    " file, by --sweep-file"
)


def key_of(token: str) -> str:
    """Of ``key=value`` the key."""
    return token.partition("=")[0]


def several_values(token: str) -> bool:
    """Whether a sweep would read more than one value in ``token``."""
    problems: list[str] = []
    return len(_values(token, problems)) > 1 and not problems


def _values(token: str, problems: list[str]) -> list[str]:
    """One token for each value."""
    key, equals, text = token.partition("=")
    try:
        parts = list(_parts(text))
    except ValueError as error:
        problems.append(f"{token}: {error}")
        return [token]
    if len(parts) > 1 and not all(parts):
        problems.append(f"{token}: there is no value before or after a comma; a text with commas is put in quotes")
        return [token]
    values = [value for part in parts for value in _range(part, token, problems)]
    return [f"{key}{equals}{value}" for value in values]


def _parts(text: str) -> Iterator[str]:
    """What stands between commas, but for those in quotes, lists and mappings. Raises ValueError."""
    start, open_ends, quote = 0, "", ""
    for at, letter in enumerate(text):
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "'\"" and (open_ends or not text[start:at].strip()):  # elsewhere it is part of a text: don't
            quote = letter
        elif letter in _OPENS:
            open_ends += _CLOSES[_OPENS.index(letter)]
        elif open_ends and letter == open_ends[-1]:
            open_ends = open_ends[:-1]
        elif letter == "," and not open_ends:
            yield text[start:at].strip()
            start = at + 1
    if quote or open_ends:
        raise ValueError(f"{(quote or open_ends[-1])} is missing at its end")
    yield text[start:].strip() if start else text


def _range(part: str, token: str, problems: list[str]) -> list[str]:
    """``0..4`` as its five whole numbers; all else as it is."""
    found = _RANGE.fullmatch(part)
    if not found:
        return [part]
    first, last = int(found[1]), int(found[2])
    if last < first or last - first >= MOST:
        problems.append(f"{token}: {part} is no range: the smaller number comes first, and {MOST} at most are possible")
        return [part]
    return [str(number) for number in range(first, last + 1)]


def _twice(given: Sequence[Sequence[str]], axes: Sequence[Sequence[str]]) -> list[str]:
    """Keys with several values that stand in another token as well: which of them counts is anybody's guess."""
    keys = [key_of(values[0]) for values in given]
    return [
        f"{key} is given twice, once with several values: give it once"
        for key in dict.fromkeys(key_of(values[0]) for values in axes)
        if keys.count(key) > 1
    ]


def _on_both_sides(axes: Sequence[Sequence[str]], lines: Sequence[tuple[str, ...]], file: Path | None) -> list[str]:
    keys = {key_of(token) for line in lines for token in line}
    both = [key_of(values[0]) for values in axes if key_of(values[0]) in keys]
    return [f"{key} has several values on the command line and is set in {file}, too: give it once" for key in both]


def _lines(file: Path, problems: list[str]) -> list[tuple[str, ...]]:
    """The tokens of each line that has any. ``#`` at a line's start or after a space begins a comment."""
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeError) as error:
        problems.append(f"--sweep-file {file} cannot be read: {getattr(error, 'strerror', None) or error}")
        return [()]
    found = []
    for number, line in enumerate(text.splitlines(), start=1):
        try:
            words = shlex.split(_without_comment(line))
        except ValueError as error:
            problems.append(f"{file}:{number}: {str(error).lower()}: close the quotes, or put the value in quotes")
            continue
        problems += [
            f"{file}:{number}: {word!r}: write group=choice or key=value; a value with spaces is put in quotes"
            for word in words
            if "=" not in word
        ]
        if words:
            found.append(tuple(words))
    if not found and not problems:
        problems.append(f"--sweep-file {file} has no runs: write one on each line, as `optim.lr=1e-3 seed=0`")
    return found or [()]


def _without_comment(line: str) -> str:
    quote, before = "", " "
    for at, letter in enumerate(line):
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "'\"":
            quote = letter
        elif letter == "#" and before.isspace():
            return line[:at]
        before = letter
    return line
