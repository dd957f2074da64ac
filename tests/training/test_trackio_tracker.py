"""The calls that trackio gets; the package itself is looked for and used where it is installed."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from mmpretrain.config.compose import compose
from tests.training.small_picture import png


class FakeRun:
    """Notes what is logged."""

    def __init__(self) -> None:
        self.logged: list[tuple[int, list[str]]] = []
        self.finished = 0

    def log(self, metrics: dict[str, Any], step: int) -> None:
        """Note names and step."""
        self.logged.append((step, list(metrics)))

    def finish(self) -> None:
        """Note the call."""
        self.finished += 1


def test_a_run_keeps_its_name_and_gets_every_step_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, begun, package = FakeRun(), [], ModuleType("trackio")
    monkeypatch.setattr(package, "init", lambda **given: begun.append(given) or run, raising=False)  # type: ignore[func-returns-value]
    monkeypatch.setattr(package, "Image", lambda picture: picture, raising=False)
    monkeypatch.setitem(sys.modules, "trackio", package)
    monkeypatch.delitem(sys.modules, "mmpretrain.training.trackio_tracker", raising=False)
    from mmpretrain.training.trackio_tracker import Trackio

    config = compose(["run.name=demo", "tracking.trackio={project: p, space_id: me/space}"])
    for done, last in ((0, 2), (1, 3)):
        tracker = Trackio(tmp_path)
        tracker.start(done, config)
        for step in range(done + 1, last + 1):
            tracker.log({"step": step, "loss": 1.0})
        if last == 3:
            tracker.picture(3, "retrieval", png())
            tracker.conclude(3, {"knn/accuracy": 0.5})
        tracker.complete()
    assert run.logged == [(1, ["loss"]), (2, ["loss"]), (3, ["loss"]), (3, ["retrieval"]), (3, ["final/knn/accuracy"])]
    assert run.finished == 2 and begun[0]["name"] == begun[1]["name"] != "demo"
    assert begun[0]["private"] and begun[0]["space_id"] == "me/space" and begun[0]["resume"] == "allow"
    monkeypatch.delitem(sys.modules, "mmpretrain.training.trackio_tracker")
