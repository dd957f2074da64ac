"""What a token means for each type of key."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mmpretrain.config.scalars import (
    Scalar,
    ScalarError,
    read_any,
    read_bool,
    read_decimal,
    read_minutes,
    read_path,
    read_text,
    read_whole,
)

TAKEN: list[tuple[Callable[[Scalar], Any], str, Any]] = [
    *(
        (read_text, text, text)
        for text in ("007", "2026_11_29", "no", "1e5", "0o17", "12:30:45", "a # b", "~/x", " x ")
    ),
    (read_whole, "64", 64),
    (read_whole, "-3", -3),
    (read_whole, "1e9", 10**9),
    (read_whole, "1.5e3", 1500),
    (read_decimal, "5e-4", 5e-4),
    (read_decimal, ".5", 0.5),
    (read_decimal, "3", 3.0),
    (read_decimal, "-.inf", -math.inf),
    (read_bool, "true", True),
    (read_bool, "False", False),
    (read_any, "null", None),
    (read_any, "12", 12),
    (read_any, "2.0", 2.0),
    (read_any, "1e9", 10**9),
    (read_any, "2026-11-29", "2026-11-29"),
    (read_any, "v1.2.3", "v1.2.3"),
    (read_any, "y", "y"),
    (read_minutes, "90", 90),
    (read_minutes, "24:00:00", 1440),
    (read_minutes, "1-00:00:00", 1440),
    (read_minutes, "1-12", 2160),
    (read_minutes, "2-01:30", 2970),
    (read_minutes, "90:01", 91),
    (read_minutes, "0:00:30", 1),
]
REFUSED: list[tuple[Callable[[Scalar], Any], str, str]] = [
    (read_whole, "007", "write 7"),
    (read_whole, "0o17", "write 15"),
    (read_whole, "0x1F", "write 31"),
    (read_whole, "1_000", "write 1000"),
    (read_whole, "24:00:00", "base 60"),
    (read_whole, "1,000", "nothing between thousands"),
    (read_whole, "1.5", "no whole number"),
    (read_whole, "1e999999999", "too large"),
    (read_whole, "true", "no number"),
    (read_whole, "\u0663", "no number"),
    (read_decimal, "0,5", "a point for decimals"),
    (read_decimal, "nan", "no number"),
    (read_decimal, "-0_1.5", "write -1.5"),
    (read_bool, "yes", "write true"),
    (read_bool, "OFF", "write false"),
    (read_bool, "2", "write true or false"),
    (read_any, "no", "write false, or put it in quotes"),
    (read_any, "0x10", "write 16, or put it in quotes"),
    (read_any, "1:30", "in quotes if it is a text"),
    (read_text, "${HOME}/x", "let the shell expand it"),
    (read_path, "$SCRATCH/x", "let the shell expand it"),
    (read_path, "~nobody-of-that-name/x", "no user 'nobody-of-that-name'"),
    (read_minutes, "1 day", "days-hours:minutes:seconds"),
    (read_minutes, "UNLIMITED", "write minutes"),
    (read_minutes, "1.5", "write minutes"),
    (read_minutes, "9" * 5000, "write minutes"),
]


@pytest.mark.parametrize(("read", "text", "value"), TAKEN)
def test_a_token_means_what_its_key_says(read: Callable[[Scalar], Any], text: str, value: Any) -> None:
    found = read(Scalar(text))
    assert found == value and type(found) is type(value)


@pytest.mark.parametrize(("read", "text", "reason"), REFUSED)
def test_what_readers_of_yaml_disagree_about_is_refused_with_the_fix(
    read: Callable[[Scalar], Any], text: str, reason: str
) -> None:
    with pytest.raises(ScalarError) as caught:
        read(Scalar(text))
    assert reason in str(caught.value) and len(str(caught.value)) < 250


def test_quotes_make_a_text_where_everything_is_allowed() -> None:
    assert read_any(Scalar("no", plain=False)) == "no"
    assert not Scalar("null", plain=False).is_null


def test_the_home_folder_is_expanded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert read_path(Scalar("~/runs")) == f"{tmp_path}/runs"
    assert read_path(Scalar("a~b")) == "a~b"
