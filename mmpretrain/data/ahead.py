"""Batches that are made ready for the device ahead of their step, by a thread of this process.

On a GPU the thread has a stream of its own: while a step computes, the next batches are pinned and fetched, and what is
left to do to them there (uint8 pixels become the encoders' numbers) is done.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from queue import Full, Queue
from typing import Any

import torch

from mmpretrain.data.batch import Batch

POLL_S = 0.2  # how soon a thread that waits for room notices that nobody wants any more
END_S = 10.0  # how long its end is waited for: storage that has stopped answering must not hide an error


@dataclass(frozen=True)
class _Item:
    """A batch and, on a GPU, what tells that it is there; or the error that came in its place; or the end."""

    batch: Batch | None = None
    ready: Any = None
    error: BaseException | None = None


def ahead(batches: Iterator[Batch], depth: int, device: torch.device) -> Iterator[Batch]:
    """The same batches on ``device``, of which up to ``depth`` wait for their turn; errors come in theirs.

    batches: used by the thread alone. Whoever stops early closes this iterator: the thread ends then.
    """
    queue: Queue[_Item] = Queue(depth)
    over = threading.Event()
    thread = threading.Thread(target=_work, args=(batches, device, queue, over), name="batches-ahead", daemon=True)
    thread.start()
    try:
        while (item := queue.get()).batch is not None:
            yield _arrived(item, device)
        if item.error is not None:
            raise item.error
    finally:
        over.set()
        thread.join(END_S)


def _work(batches: Iterator[Batch], device: torch.device, queue: Queue[_Item], over: threading.Event) -> None:
    last = _Item()
    try:
        stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        with torch.cuda.stream(stream) if stream is not None else nullcontext():
            for batch in batches:
                moved = batch.to(device)
                _put(queue, _Item(moved, stream.record_event() if stream is not None else None), over)
                if over.is_set():
                    break
    except BaseException as error:
        last = _Item(error=error)
    finally:
        try:
            getattr(batches, "close", lambda: None)()
        except BaseException as error:
            last = last if last.error else _Item(error=error)
        _put(queue, last, over)


def _put(queue: Queue[_Item], item: _Item, over: threading.Event) -> None:
    while not over.is_set():
        try:
            return queue.put(item, timeout=POLL_S)
        except Full:
            continue


def _arrived(item: _Item, device: torch.device) -> Batch:
    """The batch, for the stream that computes; its memory is not given to others before that one is done with it."""
    assert item.batch is not None
    if item.ready is not None:
        stream = torch.cuda.current_stream(device)
        stream.wait_event(item.ready)
        for tensor in item.batch.tensors():
            if tensor.is_cuda:
                tensor.record_stream(stream)
    return item.batch
