"""Records of a run, written by rank 0: steps and evaluations to its trackers, consumed.jsonl, status.json."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch

from mmpretrain.config.root import Config
from mmpretrain.data.batch import Batch
from mmpretrain.data.stream import Stream
from mmpretrain.distributed.world import World
from mmpretrain.engine.engine import StepReport
from mmpretrain.engine.nonfinite import MOST, NonFiniteError
from mmpretrain.engine.told import told_over_ranks
from mmpretrain.files import sync
from mmpretrain.run_folder import RunFolder, State, append_line, drop_lines_after
from mmpretrain.training.costs import Costs, memory_gib
from mmpretrain.training.critics_watch import CriticsWatch
from mmpretrain.training.rates import rates
from mmpretrain.training.trackers import TrackerFactory, run_trackers
from mmpretrain.words import listed

logger = logging.getLogger(__name__)
STATUS_EVERY_S = 2.0  # each one is flushed to the disk


@dataclass(frozen=True)
class Skipped:
    """Steps that were not finite and left out: in all, and in a row until now."""

    total: int = 0
    in_row: int = 0


class Recorder:
    """Turns step reports into lines. Every rank calls it, because averages are collectives; rank 0 writes."""

    def __init__(
        self, folder: RunFolder, config: Config, stream: Stream, world: World, trackers: TrackerFactory = run_trackers
    ) -> None:
        self.folder = folder
        self.config = config
        self.stream = stream
        self.world = world
        self.trackers = trackers(folder, config) if world.rank == 0 else ()
        self.takes_pictures = config.tracking.pictures and len(self.trackers) > 1
        self.costs: Costs | None = None
        self._rates = rates(config)
        self._waits: list[float] = []  # seconds for each batch since the last line
        self._memory_gib = 0.0  # the most on this rank since the last line
        self._stall_s: float | None = None  # that saves kept training waiting since the last line
        self._save_s: float | None = None  # until the newest checkpoint was complete, if that was since then
        self._last_time = time.perf_counter()
        self._last_done = 0
        self._last_status = 0.0
        self.skipped = Skipped()
        self.critics = CriticsWatch()
        self._odd: set[str] = set()  # diagnostics that were told of as not finite

    def start(self, done: int) -> None:
        """Forget what was written beyond the checkpoint that the run continues from."""
        self._last_done = done
        self._last_time = time.perf_counter()
        if self.world.rank == 0:
            for tracker in self.trackers:
                tracker.start(done, self.config)
            drop_lines_after(self.folder.consumed, done)
            drop_lines_after(self.folder.quarantine, done * self.config.data.global_batch - 1, key="position")
            self._status(done, state=State.running, total_steps=self.config.total_steps, cause=None)
        self.world.barrier()  # the other ranks add to the quarantine as soon as they read

    def timed(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        """The same batches, with the time spent waiting for them added up."""
        while True:
            before = time.perf_counter()
            batch = next(batches, None)
            if batch is None:
                return
            self._waits.append(time.perf_counter() - before)
            yield batch

    @contextmanager
    def standing_still(self) -> Iterator[None]:
        """For the time in which a save keeps training waiting."""
        before = time.perf_counter()
        yield
        self._stall_s = (self._stall_s or 0.0) + time.perf_counter() - before

    def saved(self, seconds: float) -> None:
        """A checkpoint became complete after so long; any thread may say so."""
        self._save_s = seconds

    def record(self, done: int, batch: Batch, report: StepReport, *, stop: bool) -> bool:
        """Write one step; True when any rank asks to stop. Raises NonFiniteError, on every rank alike, for a step that
        is not finite and may not be skipped."""
        ids = None
        if self.config.data.record_keys:
            ids = self.world.all_gather_rows(batch.sample_ids.to(self.world.device))
        # The longest wait for a batch (a mean hides it, and all ranks wait for the slowest), and the most memory.
        self._memory_gib = max(self._memory_gib, memory_gib(self.world.device))
        own = [float(stop), max(self._waits, default=0.0), self._memory_gib]
        told = told_over_ranks(report.losses, own, self.world, ids)
        due = done % self.config.train.log_every_steps == 0 or done == self.config.total_steps
        # Of a step that is not due they may be nan because nobody asked for them; of others that tells something.
        values = {n: value for n, value in told.means.items() if due or n[:4] == "loss" or not math.isnan(value)}
        wanted, (wait, memory) = told.most[0] > 0, told.most[1:]
        if ids is not None and self.world.rank == 0:
            keys = [self.stream.key(ordinal) for ordinal in told.numbers]
            append_line(self.folder.consumed, {"step": done, "keys": keys})
        if not (math.isfinite(values["loss"]) and math.isfinite(report.grad_norm)):
            self._not_finite(done, values, report)
            return wanted
        self.skipped = replace(self.skipped, in_row=0)
        if due or wanted:
            self._log(done, values, report, {"data_wait_max_s": wait, "memory_gib": memory})
        return wanted

    def _not_finite(self, done: int, values: Mapping[str, float], report: StepReport) -> None:
        """Note a step that was skipped. Raises NonFiniteError where none may be, or too many in a row were."""
        allowed, said = self.config.engine.skip_nonfinite, self._what_is_not_finite(values, report)
        self.skipped = Skipped(self.skipped.total + 1, self.skipped.in_row + 1)
        if report.fault is not None and self.skipped.in_row <= allowed:
            samples = done * self.config.data.global_batch
            self.write({"step": done, "samples": samples, "skipped": self.skipped.total})
            if self.world.rank == 0:
                logger.warning("step %d was skipped: %s", done, said)
            return
        times = f", as in the {allowed} before it, which were skipped" if allowed else ""
        advice = report.fault.advice if report.fault else "lower optim.lr or optim.clip"
        raise NonFiniteError(f"at step {done} {said}{times}: {advice}")

    def _what_is_not_finite(self, values: Mapping[str, float], report: StepReport) -> str:
        terms = [name for name, value in values.items() if name.startswith("loss/") and not math.isfinite(value)]
        named = f" ({listed(terms, 3)})" if terms else ""
        said = f"the loss is {values['loss']:.4g}{named} and the gradient norm {report.grad_norm:.4g}"
        if report.fault is None:
            return said
        keys = {ordinal: self.stream.key(ordinal) for _, ordinal in report.fault.samples[:MOST]}
        more = report.fault.words(keys)
        return f"{said}; {more}" if more else said

    def write(self, line: dict[str, Any]) -> None:
        """Hand a record to every tracker."""
        for tracker in self.trackers:
            tracker.log(line)

    def picture(self, step: int, name: str, png: bytes) -> None:
        """Hand a picture to every tracker."""
        for tracker in self.trackers:
            tracker.picture(step, name, png)

    def conclude(self, done: int, results: Mapping[str, float]) -> None:
        """Hand the final evaluation to every tracker."""
        for tracker in self.trackers:
            tracker.conclude(done, results)

    def flush(self) -> None:
        """Make the records written so far survive a crash."""
        for tracker in self.trackers:
            tracker.flush()
        if self.world.rank == 0 and self.folder.consumed.exists():
            sync(self.folder.consumed)

    def complete(self, done: int) -> None:
        """Mark the run as completed, once every rank is done."""
        self.world.barrier(patient=True)
        self._say_what_was_fetched()
        if saving := self._saving():  # of the last save, after which no step is logged
            self.write({"step": done, **saving})
        for tracker in self.trackers:
            tracker.complete()
        if self.world.rank == 0:
            self._status(done, state=State.completed)

    def _log(self, done: int, values: dict[str, float], report: StepReport, most: Mapping[str, float]) -> None:
        now = time.perf_counter()
        batch, steps = self.config.data.global_batch, done - self._last_done
        speed = steps * batch / (now - self._last_time)
        line = {
            "step": done,
            "samples": done * batch,
            "epoch": done * batch / len(self.stream.index),
            **self._by_source(done * batch),
            **values,
            "lr": report.lr,
            **{name: factor * report.lr for name, factor in self._rates.items()},
            "grad_norm": report.grad_norm,
            "samples_per_s": speed,
            "data_wait_s": sum(self._waits) / max(1, steps),
            **most,
            **(self.costs.line(speed, self.world.size) if self.costs else {}),
            **self._store(),
            **self._saving(),
            **({"skipped": self.skipped.total} if self.config.engine.skip_nonfinite else {}),
        }
        self._last_time, self._last_done, self._waits, self._memory_gib = now, done, [], 0.0
        self.write(line)
        if self.world.rank == 0:
            self.critics.look(done, values)
            self._tell_odd(done, values)
        if self.world.rank == 0 and now - self._last_status > STATUS_EVERY_S:
            self._last_status = now
            self._status(done)  # not the state: another rank may have noted a failure by now

    def _tell_odd(self, done: int, values: Mapping[str, float]) -> None:
        """Warn once of each diagnostic that is not finite: the loss may not be, so nothing else would say it."""
        odd = [name for name, value in values.items() if not math.isfinite(value) and name not in self._odd]
        self._odd.update(odd)
        if odd:
            logger.warning(
                "at step %d %s not finite (null in metrics.jsonl): in this step there was nothing to look at, or it can"
                " no longer be computed",
                done,
                f"{listed(odd, 3)} {'is' if len(odd) == 1 else 'are'}",
            )

    def _saving(self) -> dict[str, float]:
        """What saving took since the last line; nothing if nothing was saved."""
        times = {"save_stall_s": self._stall_s, "save_s": self._save_s}
        self._stall_s = self._save_s = None
        return {name: seconds for name, seconds in times.items() if seconds is not None}

    def _store(self) -> dict[str, float]:
        """What fetching took, over all ranks, since they started; nothing for local data."""
        counts = self.stream.store_counts()
        if counts is None:
            return {}
        values = torch.tensor(list(asdict(counts).values()), dtype=torch.float64, device=self.world.device)
        summed = self.world.all_reduce_sum(values).tolist()
        return {f"store/{name}": value for name, value in zip(asdict(counts), summed, strict=True)}

    def _say_what_was_fetched(self) -> None:
        counts = self.stream.store_counts()
        if counts is not None:
            print(f"rank {self.world.rank}, training data: {counts.words()}", flush=True)

    def _by_source(self, position: int) -> dict[str, float]:
        """Of a mixture, samples and epochs of each source."""
        found: dict[str, float] = {}
        for name, (samples, size) in self.stream.plan.by_source(position).items():
            found |= {f"samples/{name}": samples, f"epoch/{name}": samples / size}
        return found

    def _status(self, done: int, **changes: Any) -> None:
        self.folder.update_status(step=done, samples=done * self.config.data.global_batch, **changes)
