"""What all commands share."""

from __future__ import annotations

import pytest

from mmpretrain.console import at_home


def test_the_home_folder_is_expanded_where_shells_leave_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/us")
    words = ["embed", "~/release", "--data=~/data", "--out", "~/x y", "--pair=a,b", "data.path=~/x", "run.name=~"]
    assert at_home(words) == [
        "embed",
        "/home/us/release",
        "--data=/home/us/data",
        "--out",
        "/home/us/x y",
        "--pair=a,b",
        "data.path=~/x",  # the config's key says whether that is a path
        "run.name=~",
    ]
