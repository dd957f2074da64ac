"""Long lists and long causes are made short where nothing is lost that a reader needs."""

from __future__ import annotations

import shlex

import pytest

from mmpretrain.words import command, listed, shortened, without_secrets


def test_a_long_list_says_how_many_are_left_out() -> None:
    assert listed("abc") == "a, b, c"
    assert listed(range(40), 3) == "0, 1, 2 and 37 more"
    assert listed("abcd", 3) == "a, b, c, d", "one more takes no more room than saying so"
    assert listed([]) == ""


def test_a_long_cause_loses_its_middle_and_keeps_the_fix() -> None:
    cause = shortened(f"ShardError: {'x' * 500}\n   too many: repair the shards or raise data.max_bad_fraction")
    assert len(cause) == 300
    assert cause.startswith("ShardError: xxx") and " [...] " in cause
    assert cause.endswith("too many: repair the shards or raise data.max_bad_fraction")
    assert shortened(" a\n b ") == "a b"


def test_a_command_reads_back_as_its_words() -> None:
    words = ["mmpretrain", "shards", "index", "/data/my files/a'b"]
    assert shlex.split(command(*words)) == words


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://me:pw@host/a.tar is missing", "https://***@host/a.tar is missing"),
        ("(url='http://host/a?sig=pw&x=1')", "(url='http://host/a?***')"),
        ("'s3://key:pw@bucket/a?versionId=pw' and /local/a?b", "'s3://***@bucket/a?***' and /local/a?b"),
        ("mail me@host, is http://host/a there?", "mail me@host, is http://host/a there?"),
    ],
)
def test_what_urls_hold_of_secrets_is_left_out(text: str, shown: str) -> None:
    assert without_secrets(text) == shown
