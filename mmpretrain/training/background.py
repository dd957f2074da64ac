"""A tracker behind a thread of its own: it costs a step no more than a queue does, and its failure ends no run."""

from __future__ import annotations

import atexit
import logging
import queue
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from mmpretrain.config.root import Config
from mmpretrain.words import shortened, without_secrets

logger = logging.getLogger(__name__)
MOST_WAITING = 10_000  # calls; a tracker that far behind does not come back
FLUSH_S, END_S, EXIT_S = 5.0, 60.0, 3.0  # how long a checkpoint, the end of a run, and that of a process wait for it


class Background:
    """A sink that hands every call on to a tracker, in order, on a thread.

    make: makes the Tracker, on that thread (importing its package and reaching its server take time). What it or the
    tracker raises is told in one warning, and the tracker gets nothing more.
    """

    def __init__(self, name: str, make: Callable[[], Any]) -> None:
        self.name = name
        self.dropped = False
        self._make = make
        self._calls: queue.SimpleQueue[tuple[str, tuple[Any, ...]] | threading.Event] = queue.SimpleQueue()
        self._behind: threading.Event | None = None  # set when the tracker has done what it was waited for in vain
        self._thread = threading.Thread(target=self._work, name=f"tracker {name}", daemon=True)

    def start(self, done: int, config: Config) -> None:
        """Begin; what the tracker thinks of it shows later."""
        self._call("start", done, config)
        self._thread.start()
        atexit.register(self._leave)

    def log(self, record: Mapping[str, Any]) -> None:
        """Hand a record on."""
        self._call("log", dict(record))

    def picture(self, step: int, name: str, png: bytes) -> None:
        """Hand a picture on."""
        self._call("picture", step, name, png)

    def flush(self) -> None:
        """Wait until the tracker has flushed, for a while; not again before one that took longer has come back."""
        self._call("flush")
        if self._behind is None or self._behind.is_set():
            self._behind = None if self._wait(FLUSH_S) else self._mark()

    def conclude(self, step: int, scores: Mapping[str, float]) -> None:
        """Hand the final evaluation on."""
        self._call("conclude", step, dict(scores))

    def complete(self) -> None:
        """Wait until the tracker has delivered everything, for a while."""
        self._call("complete")
        if not self._wait(END_S):
            self._drop(f"it was not done {END_S:.0f} s after the end of the run")
        atexit.unregister(self._leave)

    def _call(self, method: str, *arguments: Any) -> None:
        if self.dropped:
            return
        if self._calls.qsize() > MOST_WAITING:
            self._drop(f"it is {MOST_WAITING:,} records behind")
            return
        self._calls.put((method, arguments))

    def _mark(self) -> threading.Event:
        """What is set when all calls so far are done."""
        reached = threading.Event()
        self._calls.put(reached)
        if self.dropped:  # perhaps only just, when nobody looks into the queue any more
            reached.set()
        return reached

    def _wait(self, seconds: float) -> bool:
        return self.dropped or self._mark().wait(seconds)

    def _leave(self) -> None:
        """The process ends early: what was logged shows how the run went until then."""
        self._call("flush")
        self._wait(EXIT_S)

    def _work(self) -> None:
        try:
            tracker = self._make()
            method = ""
            while not self.dropped:
                call = self._calls.get()
                if not isinstance(call, threading.Event):
                    method = call[0]
                    getattr(tracker, method)(*call[1])
                    continue
                call.set()
                if method == "complete":
                    return
        except BaseException as error:  # packages end processes, too: SystemExit would pass unseen here
            self._drop(f"{type(error).__name__}: {error}")

    def _drop(self, why: str) -> None:
        if not self.dropped:
            self.dropped = True
            logger.warning(
                "tracking.%s gets no more records, and the run goes on without it: %s",
                self.name,
                shortened(without_secrets(why)),
            )
        with suppress(queue.Empty):
            while True:  # whoever waits need not
                call = self._calls.get_nowait()
                if isinstance(call, threading.Event):
                    call.set()
