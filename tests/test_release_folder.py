"""What releases are called, and what a run's start was made of."""

from __future__ import annotations

import json
from pathlib import Path

from mmpretrain.release_folder import made_of, release_name


def test_what_a_run_was_started_from_is_called_as_it_was_before_it_was_converted(tmp_path: Path) -> None:
    start = tmp_path / "run" / "start"
    start.mkdir(parents=True)
    assert made_of(str(start)) == (str(start), None)
    (tmp_path / "run" / "start.json").write_text(json.dumps({"source": "someone/clip", "revision": "v2"}))
    assert made_of(str(start)) == ("someone/clip", "v2")
    assert made_of(str(tmp_path / "run" / "release"), "v1") == (str(tmp_path / "run" / "release"), "v1")
    (tmp_path / "run" / "start.json").write_text("{")
    assert made_of(str(start)) == (str(start), None)


def test_the_release_of_a_run_is_called_like_the_run(tmp_path: Path) -> None:
    (tmp_path / "mine" / "release").mkdir(parents=True)
    assert release_name(str(tmp_path / "mine" / "release")) == "mine"
    assert release_name("someone/model") == "someone/model"
