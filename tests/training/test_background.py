"""A tracker on a thread of its own: everything arrives in order, and nothing that it does ends or holds up a run."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from mmpretrain.config.compose import compose
from mmpretrain.config.root import Config
from mmpretrain.training import background
from mmpretrain.training.background import Background


class Sink:
    """Notes its calls; ``fail`` and ``gate`` are what log does beside that."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.threads: set[str] = set()
        self.fail: Exception | None = None
        self.gate = threading.Event()
        self.gate.set()

    def __getattr__(self, name: str) -> Callable[..., None]:
        def call(*arguments: Any) -> None:
            self.gate.wait(20)
            self.threads.add(threading.current_thread().name)
            if self.fail:
                raise self.fail
            self.calls.append((name, *arguments))

        return call


@pytest.fixture(scope="module")
def config() -> Config:
    """Any config."""
    return compose()


@pytest.fixture
def sink() -> Iterator[Sink]:
    """A tracker whose gate is open in the end."""
    made = Sink()
    yield made
    made.gate.set()


def test_calls_arrive_in_order_on_another_thread(sink: Sink, config: Config) -> None:
    tracker = Background("x", lambda: sink)
    tracker.start(3, config)
    tracker.log({"step": 4})
    tracker.picture(4, "retrieval", b"png")
    tracker.flush()
    assert sink.calls == [("start", 3, config), ("log", {"step": 4}), ("picture", 4, "retrieval", b"png"), ("flush",)]
    tracker.conclude(4, {"a": 1.0})
    tracker.complete()
    assert sink.calls[4:] == [("conclude", 4, {"a": 1.0}), ("complete",)] and sink.threads == {"tracker x"}
    tracker._thread.join(10)
    assert not tracker._thread.is_alive()


@pytest.mark.parametrize("where", ["make", "log"])
def test_a_failure_is_told_once_and_the_run_goes_on(
    sink: Sink, config: Config, caplog: pytest.LogCaptureFixture, where: str
) -> None:
    def make() -> Sink:
        if where == "make":
            raise SystemExit("no key at https://user:secret@host")  # packages do that, too
        return sink

    tracker = Background("x", make)
    tracker.start(0, config)
    sink.fail = None if where == "make" else OSError("no key at https://user:secret@host")
    with caplog.at_level(logging.WARNING):
        for step in range(20):
            tracker.log({"step": step})
        tracker.flush()
        tracker.log({"step": 20})
        tracker.complete()
    (message,) = caplog.messages
    assert message.startswith("tracking.x gets no more records, and the run goes on without it: ")
    assert "no key at" in message and "secret" not in message


def test_one_that_hangs_holds_up_the_first_checkpoint_alone_and_the_end_for_a_while(
    sink: Sink, config: Config, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(background, "FLUSH_S", 0.2)
    monkeypatch.setattr(background, "END_S", 0.2)
    sink.gate.clear()
    tracker = Background("x", lambda: sink)
    began = time.monotonic()
    tracker.start(0, config)
    for step in range(1000):
        tracker.log({"step": step})
    waited = []
    for _ in range(3):
        before = time.monotonic()
        tracker.flush()
        waited.append(time.monotonic() - before)
    assert waited[0] >= 0.2 > 0.1 > max(waited[1:])
    tracker.complete()
    assert time.monotonic() - began < 10 and "not done 0 s after the end" in caplog.text


def test_one_that_falls_behind_for_good_is_dropped(
    sink: Sink, config: Config, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(background, "MOST_WAITING", 50)
    sink.gate.clear()
    tracker = Background("x", lambda: sink)
    tracker.start(0, config)
    for step in range(100):
        tracker.log({"step": step})
    assert tracker.dropped and "50 records behind" in caplog.text and tracker._calls.empty()
