"""Every driver says what it takes, and stands in the table of drivers."""

from __future__ import annotations

import re
import runpy
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
FILES = sorted((ROOT / "experiments").glob("*.py"))
DRIVERS = [path.stem for path in FILES if '__name__ == "__main__"' in path.read_text(encoding="utf-8")]


def test_the_table_of_drivers_names_each_once() -> None:
    page = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    table = page.partition("\n## Drivers\n")[2].partition("\n## ")[0]
    named = re.findall(r"^\| `python -m experiments\.(\w+)", table, re.MULTILINE)
    assert sorted(named) == DRIVERS


@pytest.mark.slow
@pytest.mark.parametrize("name", DRIVERS)
def test_help_says_what_a_driver_takes(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", [name, "--help"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_module(f"experiments.{name}", run_name="__main__")
    assert not ended.value.code and "usage:" in capsys.readouterr().out
