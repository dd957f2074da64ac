"""What one value means: the one reader of scalars of the command line, config files and profiles (no torch here).

The key decides, not the look of the value: a text key takes its token literally (``007``, ``no``, ``2026_11_29``),
every other key takes YAML 1.2's core schema, and what readers of YAML disagree about is refused with the fix.
"""

from __future__ import annotations

import math
import os.path
import re
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

MOST_DIGITS = 30  # of a whole number: 1e999999999 would take all memory

_NULL = ("", "~", "null", "Null", "NULL")
_BOOL = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_OLD_BOOL = {"yes": "true", "on": "true", "y": "true", "1": "true", "no": "false", "off": "false", "n": "false"}
_OLD_BOOL |= {"0": "false"}
_OTHER_BOOL = ("yes", "no", "on", "off")
_NUMBER = re.compile(r"[+-]?(\.[0-9]+|(0|[1-9][0-9]*)(\.[0-9]*)?)([eE][+-]?[0-9]+)?")
_WHOLE = re.compile(r"[+-]?(0|[1-9][0-9]*)")
_SPECIAL = re.compile(r"([+-]?)\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
# What is a number to some readers of YAML only: in base 60, 16, 8 or 2, with underscores or zeros in front.
_BASE_60 = re.compile(r"[+-]?[0-9][0-9_]*(:[0-9]{1,2})+(\.[0-9_]*)?")
_OTHER_BASE = re.compile(r"[+-]?0([xX][0-9a-fA-F_]+|[oO][0-7_]+|[bB][01_]+)")
_UNDERSCORES = re.compile(r"[+-]?[0-9][0-9_]*_[0-9_]*(\.[0-9_]*)?([eE][+-]?[0-9]+)?")
_ZEROS = re.compile(r"[+-]?0[0-9]+(\.[0-9]*)?([eE][+-]?[0-9]+)?")
# Slurm's forms of a time, each with the minutes that its numbers stand for.
_TIMES = (
    (re.compile(r"(\d+)", re.ASCII), (1,)),
    (re.compile(r"(\d+):(\d+)", re.ASCII), (1, 1 / 60)),
    (re.compile(r"(\d+):(\d+):(\d+)", re.ASCII), (60, 1, 1 / 60)),
    (re.compile(r"(\d+)-(\d+)", re.ASCII), (1440, 60)),
    (re.compile(r"(\d+)-(\d+):(\d+)", re.ASCII), (1440, 60, 1)),
    (re.compile(r"(\d+)-(\d+):(\d+):(\d+)", re.ASCII), (1440, 60, 1, 1 / 60)),
)


class ScalarError(ValueError):
    """A value that its key cannot take; says what it is and what to write instead."""


@dataclass(frozen=True)
class Scalar:
    """One value as it is written. plain: without quotes. line: in its file, from 1; None on the command line."""

    text: str
    plain: bool = True
    line: int | None = None

    @property
    def is_null(self) -> bool:
        """Whether it says that there is no value; in quotes it is a text."""
        return self.plain and self.text.strip() in _NULL


def read_text(scalar: Scalar) -> str:
    """The token itself. Raises ScalarError for one that expects to be filled in by somebody."""
    if "${" in scalar.text:
        raise ScalarError("variables (${...}) are not read: write the value itself, or let the shell expand it")
    return scalar.text


def read_path(scalar: Scalar) -> str:
    """The token with a leading ``~`` or ``~user`` expanded. Raises ScalarError for variables and unknown users."""
    text = read_text(scalar)
    if re.match(r"\$[A-Za-z_]", text):
        raise ScalarError("variables ($NAME) are not read: write the path itself, or let the shell expand it")
    expanded = os.path.expanduser(text)
    if expanded.startswith("~"):
        user = text[1:].partition("/")[0]
        raise ScalarError(f"there is no user {user!r} on this machine: write the folder, or ./{text} if it is its name")
    return expanded


def read_whole(scalar: Scalar) -> int:
    """A whole number in decimal digits, also as 1e9. Raises ScalarError."""
    text = scalar.text.strip()
    if not _NUMBER.fullmatch(text):
        raise ScalarError(_no_number(text))
    number = Decimal(text)
    if number and number.adjusted() >= MOST_DIGITS:
        raise ScalarError(f"{_shown(text)} is too large for a whole number")
    if number != number.to_integral_value():
        raise ScalarError(f"{_shown(text)} is no whole number")
    return int(number)


def read_decimal(scalar: Scalar) -> float:
    """A decimal number, also as 5e-4; YAML's .inf and .nan too. Raises ScalarError."""
    text = scalar.text.strip()
    if special := _SPECIAL.fullmatch(text):
        return math.nan if special[3] else math.copysign(math.inf, -1 if special[1] == "-" else 1)
    if not _NUMBER.fullmatch(text):
        raise ScalarError(_no_number(text))
    return float(text)


def read_bool(scalar: Scalar) -> bool:
    """``true`` or ``false``. Raises ScalarError."""
    text = scalar.text.strip()
    if text in _BOOL:
        return _BOOL[text]
    meant = _OLD_BOOL.get(text.lower())
    raise ScalarError(f"{_shown(text)} is neither true nor false: write {meant or 'true or false'}")


def read_minutes(scalar: Scalar) -> int:
    """Minutes, or a time as Slurm writes it (``90``, ``24:00:00``, ``1-12``), rounded up. Raises ScalarError."""
    text = scalar.text.strip()
    for form, units in _TIMES:
        if (found := form.fullmatch(text)) and len(text) <= MOST_DIGITS:
            return math.ceil(sum(round(60 * unit) * int(n) for unit, n in zip(units, found.groups(), strict=True)) / 60)
    raise ScalarError(
        f"{_shown(text)} is no time: write minutes, or, as Slurm does, minutes:seconds, hours:minutes:seconds,"
        " days-hours, days-hours:minutes or days-hours:minutes:seconds"
    )


def read_any(scalar: Scalar) -> Any:
    """Where the key allows everything: null, true, false, a decimal number, or else the text.

    Raises ScalarError for what is one thing to some readers of YAML and another one to others.
    """
    text = scalar.text
    if not scalar.plain:
        return read_text(scalar)
    if scalar.is_null:
        return None
    if text in _BOOL:
        return _BOOL[text]
    if _WHOLE.fullmatch(text):
        return read_whole(scalar)
    if _NUMBER.fullmatch(text) or _SPECIAL.fullmatch(text):
        number = read_decimal(scalar)
        # 1e9 samples are a count; 2.0 stays what it is written as.
        return read_whole(scalar) if "." not in text and number.is_integer() and abs(number) < 1e15 else number
    if text.lower() in _OTHER_BOOL:
        raise ScalarError(f"{text} is a truth value or a text: write {_OLD_BOOL[text.lower()]}, or put it in quotes")
    if _decimal_of(text) or _BASE_60.fullmatch(text):
        raise ScalarError(f"{_no_number(text)}, or put it in quotes if it is a text")
    return read_text(scalar)


def _no_number(text: str) -> str:
    if meant := _decimal_of(text):
        return f"{_shown(text)} is no plain decimal number: write {meant}"
    if _BASE_60.fullmatch(text):
        return f"{_shown(text)} is a time, or a number in base 60: write one decimal number"
    if re.fullmatch(r"[+-]?[0-9]+,[0-9,]*[0-9]", text):
        return f"{_shown(text)} is no plain decimal number: write a point for decimals, and nothing between thousands"
    return f"{_shown(text)} is no number"


def _decimal_of(text: str) -> str | None:
    """What a number in another base, with underscores or with zeros in front comes to; None if it is no such one."""
    bare = text.replace("_", "")
    if len(text) > MOST_DIGITS:
        return None
    if _OTHER_BASE.fullmatch(text) and len(bare.lstrip("+-")) > 2:
        return str(int(bare, 0))
    if _UNDERSCORES.fullmatch(text) or _ZEROS.fullmatch(text):
        sign = text[0] if text[0] in "+-" else ""
        digits = bare.lstrip("+-").lstrip("0")
        return sign + (digits if digits[:1].isdigit() else f"0{digits}")
    return None


def _shown(text: str) -> str:
    return repr(text if len(text) <= 60 else f"{text[:57]}...")
