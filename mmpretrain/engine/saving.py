"""Checkpoints of a run, written while it trains on: a snapshot in host memory, then a thread on every rank.

    saving.start(step, facts)    all ranks: copy the state, and train on
      thread of each rank:       write its files, flush and hash them, leave its done-marker
      thread of rank 0:          wait for all markers, then commit as checkpoint_files.py does
    saving.join()                all ranks: wait for it; an error of any rank is one on all of them

Threads call no collectives: what they tell one another lies in files. One checkpoint is in flight at a time.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from mmpretrain.distributed.world import World
from mmpretrain.engine import checkpoint, checkpoint_files
from mmpretrain.engine.checkpoint import DEEPSPEED, StateFile, all_facts, own_files, told_clearly
from mmpretrain.engine.checkpoint_files import CheckpointError, DiskFullError
from mmpretrain.engine.engine import Engine
from mmpretrain.engine.host_copies import HostCopies

POLL_S = 0.05
LONGEST_CAUSE = 1000  # bytes of a message that one rank tells the others
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Saved:
    """A checkpoint that is complete. seconds: from the wish for it until then. facts: those of its manifest."""

    step: int
    seconds: float
    facts: dict[str, Any]


@dataclass
class _Job:
    """A checkpoint in flight. written: this rank's part of it is done, or has failed with ``error``."""

    step: int
    writing: Path
    files: list[StateFile]
    facts: dict[str, Any]
    keep: Collection[int]
    began: float
    written: threading.Event = field(default_factory=threading.Event)
    given_up: threading.Event = field(default_factory=threading.Event)
    error: CheckpointError | None = None
    thread: threading.Thread | None = None


class Saving:
    """What saves a run's checkpoints, beside training or at once.

    committed: called on rank 0, perhaps by a thread, when a checkpoint has become complete.
    """

    def __init__(self, engine: Engine, checkpoints: Path, committed: Callable[[Saved], None] = lambda _: None) -> None:
        self._engine, self._checkpoints, self._committed = engine, checkpoints, committed
        self._copies = HostCopies()
        self._job: _Job | None = None

    @property
    def failed(self) -> bool:
        """Whether this rank could not write; all ranks must then call :meth:`join`, which says why."""
        return self._job is not None and self._job.error is not None

    @property
    def possible(self) -> bool:
        """Whether DeepSpeed writes by ``torch.save``; another writer (``engine.deepspeed.checkpoint``) has ways of its
        own, and :meth:`start` is not to be called."""
        return type(self._engine.deepspeed.checkpoint_engine).__name__ == "TorchCheckpointEngine"

    def save(self, step: int, facts: dict[str, Any], keep: Collection[int] = ()) -> None:
        """Have the one in flight complete, then write one at once, as :func:`checkpoint.save` does; a collective."""
        self.join()
        began = time.perf_counter()
        checkpoint.save(self._engine, self._checkpoints, step, facts, keep)
        if self._engine.world.rank == 0:
            self._committed(Saved(step, time.perf_counter() - began, facts))

    def start(self, step: int, facts: dict[str, Any], keep: Collection[int] = ()) -> None:
        """Copy the state after ``step`` steps, and have it written while the caller goes on; a collective.

        It waits for the checkpoint in flight first, if there is one. facts, keep: as :func:`checkpoint.save` takes
        them. Raises CheckpointError: on all ranks alike if the one in flight failed, on one alone if that cannot even
        make the folder. What fails later is told by :attr:`failed` and :meth:`join`.
        """
        self.join()
        began = time.perf_counter()
        writing = checkpoint_files.writing_folder(self._checkpoints, step)
        rank = self._engine.world.rank
        with told_clearly(writing, rank):
            if rank == 0:
                checkpoint_files.start_writing(self._checkpoints, step)
            files = [*self._deepspeed_files(writing), *self._own_files()]
            self._copies.arrived()
        job = _Job(step, writing, files, facts, keep, began)
        # A daemon: a process that must end does not wait for it, and what it leaves is no checkpoint.
        job.thread = threading.Thread(target=self._work, args=(job,), name=f"checkpoint {step}", daemon=True)
        self._job = job
        job.thread.start()

    def join(self) -> None:
        """Wait until the checkpoint in flight is complete; a collective.

        Raises CheckpointError, on all ranks with the same words, when a rank could not write, or was not done
        ``engine.timeout_s`` after it was waited for.
        """
        job, self._job = self._job, None
        if job is None or job.thread is None:
            return
        world = self._engine.world
        if not job.written.wait(self._patience_s):
            job.error = job.error or self._too_slow(job)
        if error := _first_error(job.error, world):
            job.given_up.set()  # rank 0 may be waiting for a marker that does not come
            raise error from job.error
        if world.rank == 0:
            job.thread.join()
        if error := _first_error(job.error, world):
            raise error from job.error

    def leave(self, most_s: float) -> None:
        """After an error elsewhere, when no rank may wait for another: give the checkpoint in flight a chance to
        become complete, for so many seconds at most."""
        job, end = self._job, time.monotonic() + most_s
        if job is None or job.error is not None:
            return
        job.written.wait(most_s)
        # Rank 0's folder goes away with its name: until then ending this process might end that of rank 0.
        while job.error is None and job.writing.exists() and time.monotonic() < end:
            time.sleep(POLL_S)

    @property
    def _patience_s(self) -> float:
        return self._engine.config.engine.timeout_s

    def _too_slow(self, job: _Job) -> CheckpointError:
        return CheckpointError(
            f"rank {self._engine.world.rank} has not written its part of {job.writing} {self._patience_s:g} s after it"
            " was waited for: raise engine.timeout_s or checkpoint.every_steps, or use faster storage;"
            " earlier checkpoints are untouched"
        )

    def _deepspeed_files(self, writing: Path) -> list[StateFile]:
        """What DeepSpeed would write, copied: the seam is the ``save`` of its checkpoint engine."""
        files: list[StateFile] = []
        writer = self._engine.deepspeed.checkpoint_engine
        write = writer.save

        def hold(state_dict: Any, path: str) -> None:
            name = str(Path(path).relative_to(writing))
            files.append(StateFile(name, self._copies.take(name, state_dict), write))

        writer.save = hold
        try:
            self._engine.deepspeed.save_checkpoint(str(writing), tag=DEEPSPEED, save_latest=False)
        finally:
            del writer.save  # the method of its class is back
        return files

    def _own_files(self) -> list[StateFile]:
        return [
            StateFile(file.name, self._copies.take(file.name, file.state), file.to) for file in own_files(self._engine)
        ]

    def _work(self, job: _Job) -> None:
        rank = self._engine.world.rank
        try:
            with told_clearly(job.writing, rank):
                for file in job.files:
                    file.write(job.writing)
                checkpoint_files.describe_files(job.writing, rank, [file.name for file in job.files])
                job.written.set()
                if rank == 0:
                    self._commit(job)
        except CheckpointError as error:
            job.error = error
        except BaseException as error:  # nothing that a thread raises may pass unseen
            job.error = CheckpointError(f"rank {rank} could not write {job.writing} ({type(error).__name__}: {error})")
        finally:
            job.written.set()

    def _commit(self, job: _Job) -> None:
        size, settings = self._engine.world.size, self._engine.config.checkpoint
        checkpoint_files.commit(
            job.writing, all_facts(self._engine, job.step, job.facts), size, self._patience_s, job.given_up.is_set
        )
        checkpoint_files.prune(self._checkpoints, job.step, settings.keep_last, settings.keep_every, job.keep)
        self._committed(Saved(job.step, time.perf_counter() - job.began, job.facts))


def _first_error(error: CheckpointError | None, world: World) -> CheckpointError | None:
    """What the first rank that has an error says, on all ranks; None if none has one. A collective."""
    # Patiently: others may still write, which takes as long as it takes.
    if not world.max_flag(error is not None, patient=True):
        return None
    text = str(error or "").encode()[:LONGEST_CAUSE]
    row = torch.zeros(1, 1 + LONGEST_CAUSE, dtype=torch.int64, device=world.device)
    row[0, 0] = isinstance(error, DiskFullError)
    row[0, 1 : 1 + len(text)] = torch.tensor(list(text), dtype=torch.int64)
    full, *told = next(told for told in world.all_gather_rows(row).tolist() if any(told))
    return (DiskFullError if full else CheckpointError)(bytes(filter(None, told)).decode(errors="replace"))
