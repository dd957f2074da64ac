"""The page of faults: every end is on it with its code, and every test that it names exists."""

from __future__ import annotations

import re

import pytest

from mmpretrain.endings import Ending
from tests.test_docs import ROOT

PAGE = (ROOT / "docs" / "reliability.md").read_text()
TESTS = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", PAGE)


@pytest.mark.parametrize("ending", list(Ending), ids=lambda ending: ending.name)
def test_every_end_is_on_the_page_with_its_code(ending: Ending) -> None:
    assert f"| {ending.code} | `{ending.name}` | " in PAGE


@pytest.mark.parametrize(("file", "name"), TESTS, ids=[name for _, name in TESTS])
def test_a_test_that_the_page_names_exists(file: str, name: str) -> None:
    assert f"\ndef {name}(" in (ROOT / file).read_text(), f"{file} has no {name}"


def test_every_row_of_faults_names_a_test() -> None:
    rows = PAGE.split("## Faults, promises and their tests")[1].strip().splitlines()[2:]
    assert len(rows) >= 18
    for row in rows:
        assert re.search(r"`tests/[\w/]+\.py::\w+` \|$", row), row
