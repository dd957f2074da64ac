"""A thread beside each rank's main thread: it shows signs of life, and ends the run when nothing moves any more.

A main thread that is stuck cannot speak, and a stopped process has no thread that runs. So each rank watches itself
and one neighbor, and rank 0 whether anybody still moves. Whoever finds a hang first says so in a file; then all ranks
write down their stacks, that one names the guilty, and all end with the exit code for it.

Only time that this thread itself has seen pass counts: a machine that slept, a shell's Ctrl-Z and a file system that
stalls are no hang of anybody.
"""

from __future__ import annotations

import faulthandler
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import psutil
from submitit.core.utils import JobPaths

from launcher.ranks.heartbeats import ENDED, Beat, Verdict, is_gone, place, read_beat, read_beats, verdict, write_beat
from mmpretrain.endings import Ending
from mmpretrain.training.phases import PATIENCE, START, position
from mmpretrain.training.preemption import preemption_requested

BEAT_S = 5.0
RANKS_PER_S = 32  # signs of life that a shared file system gets in a second
LOOKS = 3  # at all ranks, until it is said which one hangs
TOLD = "told"
STILL = 6  # looks that are missing when a process has been stopped, and is not just slow
RANK = "submitit.core._submit"  # in the command line of every rank
MOST = 24  # times the patience: even a thread that seems to work must have got further by then


@dataclass(frozen=True)
class Watched:
    """Of which rank. attempt: this start of the job, the same on all ranks. hang_s: ``engine.hang_s``. parent: the
    process without which the rank must not go on, as nobody would know of it any more."""

    folder: Path
    rank: int
    ranks: int
    attempt: str
    paths: JobPaths
    hang_s: float
    parent: int | None = None

    @property
    def beat_s(self) -> float:
        """Seconds between two looks."""
        return max(0.1, min(max(BEAT_S, self.ranks / RANKS_PER_S), self.hang_s / 5))


class Watchdog:
    """The thread. told: gets the verdict of the rank that found a hang, before all of them end. stopped: is called when
    this rank was told to stop while it starts, in case it is killed before it can heed that."""

    def __init__(
        self, watched: Watched, told: Callable[[Verdict], None], stopped: Callable[[], None] | None = None
    ) -> None:
        self._of, self._told, self._stopped = watched, told, stopped
        self._main = threading.main_thread().ident or 0
        self._over = threading.Event()
        self._number, self._seen = 0, time.monotonic()
        self._still, self._woke = 0.0, float("-inf")
        self._sign: object = None
        self._stood: tuple[str, bool] | None = None
        self._idle = self._unmoved = self._neighbor_silent = 0.0
        self._count = self._neighbor_number = -1
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def start(self) -> None:
        """Begin to watch the thread that runs this."""
        with suppress(OSError):
            self._of.folder.mkdir(parents=True, exist_ok=True)
            if self._of.rank == 0:
                for old in (*self._of.folder.glob("hang-*"), *self._of.folder.glob("claim-*")):
                    if old not in (self._hang, self._claim):
                        old.unlink(missing_ok=True)
            self._say("")
            self._beat()
        self._thread.start()

    def stop(self) -> None:
        """The rank is through, and silent from now on."""
        self._over.set()
        with suppress(OSError):
            self._beat(phase=ENDED)

    def leave_within(self, seconds: float, code: int) -> None:
        """Main thread: it ends this process now, with a cause on record. A thread of some package that does not end
        would keep it alive and look like a hang; then this ends it."""
        self._over.set()
        timer = threading.Timer(seconds, _end, [code])
        timer.daemon = True
        timer.start()

    def why_waiting(self, error: BaseException) -> Verdict | None:
        """For a rank whose wait for others ended with ``error``: who kept it waiting. It must end soon itself.

        None where another rank tells it, to whom this one still shows signs of life, from where it waited.
        """
        self.waited(error)
        if not self._claimed():
            return None
        self._over.set()
        return self._judged()

    def waited(self, error: BaseException) -> None:
        """Main thread: it stood where ``error`` came from, waiting for others, whatever it does about that now."""
        trace = error.__traceback__
        while trace is not None and trace.tb_next is not None:
            trace = trace.tb_next
        self._stood = (place(trace.tb_frame if trace else None)[0], True)

    def has_told(self) -> None:
        """What :meth:`why_waiting` found is on record."""
        with suppress(OSError):
            self._say(TOLD)

    def let_tell(self) -> bool:
        """Main thread: leave the rank that looks for the cause of a hang the time to tell it, as the end of this one
        may end all others. Whether there is such a rank."""
        asked, end = self._announced(), time.monotonic() + 2 * LOOKS * self._of.beat_s
        while (said := self._announced()) and TOLD not in said and time.monotonic() < end:
            time.sleep(self._of.beat_s / 5)
        return bool(asked)

    def beats(self) -> dict[int, Beat]:
        """The signs of life of all ranks."""
        return read_beats(self._of.folder, self._of.ranks, self._of.attempt)

    @property
    def _hang(self) -> Path:
        """Not empty once there is a hang. It is there from the start: that a file appears is seen late on NFS, which
        remembers for up to a minute that there was none, and what an open file holds at once."""
        return self._of.folder / f"hang-{self._of.attempt}"

    @property
    def _claim(self) -> Path:
        """Made by the rank that found a hang first."""
        return self._of.folder / f"claim-{self._of.attempt}"

    def _announced(self) -> str:
        with suppress(OSError):
            return self._hang.read_text()
        return ""

    def _say(self, text: str) -> None:
        with self._hang.open("a") as stream:
            stream.write(text)

    def _watch(self) -> None:
        while not self._over.wait(self._of.beat_s):
            with suppress(Exception):  # a thread that is gone would look like a rank that hangs
                self._look()

    def _look(self) -> None:
        passed = self._passed()
        sign = self._progress()
        self._idle = 0.0 if sign != self._sign else self._idle + passed
        self._unmoved = 0.0 if position().count != self._count else self._unmoved + passed
        self._sign, self._count = sign, position().count
        self._beat()
        if self._stopped and preemption_requested() and position().phase == START:
            self._stopped()
            self._stopped = None
        if self._of.parent not in (None, os.getppid()):
            self._end_as_orphan()
        elif self._announced():
            self._leave()
        elif (self._neighbor_is_silent(passed) or (self._of.rank == 0 and self._nobody_moves())) and self._claimed():
            found = self._judged()
            self._told(found)
            end_silent(self.beats(), found)
            self.has_told()
            end_here(found.ending)

    def _end_as_orphan(self) -> None:
        if self._claimed():
            text = f"the process that started the ranks ({self._of.parent}) is gone: killed from outside"
            self._told(Verdict((), text, Ending.lost))
        end_here(Ending.lost)

    def _passed(self) -> float:
        """Seconds since the last look that count."""
        before, self._seen = self._seen, time.monotonic()
        if self._seen - before > STILL * self._of.beat_s:
            self._still, self._woke = self._seen - before, self._seen
        return min(self._seen - before, 2 * self._of.beat_s)

    def _stood_still(self) -> str:
        """That this process itself was stopped until a moment ago, which clocks of collectives do not know."""
        self._passed()
        if self._seen - self._woke > STILL * self._of.beat_s:
            return ""
        return f"; this process itself stood still for {self._still:.0f} s before (Ctrl-Z, or a job that was suspended)"

    def _progress(self) -> object:
        """What changes while the main thread gets on: its stack, what it counts, and what it reads and writes."""
        frame, stack = sys._current_frames().get(self._main), []
        while frame is not None:
            stack.append((id(frame.f_code), frame.f_lasti))
            frame = frame.f_back
        moved = ""
        with suppress(OSError):
            moved = Path(f"/proc/self/task/{self._main_task}/io").read_text().partition("syscr")[0]
        return position().count, tuple(stack), moved

    @property
    def _main_task(self) -> int:
        return threading.main_thread().native_id or os.getpid()

    def _patience(self) -> float:
        return self._of.hang_s * PATIENCE.get(position().phase, 1.0)

    def _beat(self, phase: str | None = None) -> None:
        self._number += 1
        at, (where, waits) = position(), self._stood or place(sys._current_frames().get(self._main))
        host, idle = socket.gethostname(), max(self._idle, self._unmoved / MOST)
        count = (phase or at.phase, at.step, at.count)
        beat = Beat(self._of.attempt, self._number, host, os.getpid(), *count, idle, self._patience(), where, waits)
        write_beat(self._of.folder, self._of.rank, beat)

    def _neighbor_is_silent(self, passed: float) -> bool:
        if self._of.ranks == 1:
            return False
        beat = read_beat(self._of.folder, (self._of.rank + 1) % self._of.ranks, self._of.attempt)
        if beat is None or beat.phase == ENDED or beat.number != self._neighbor_number:
            self._neighbor_silent = 0.0
            self._neighbor_number = beat.number if beat else -1
            return False
        self._neighbor_silent += passed
        # Loading libraries from a slow file system lets no other thread run.
        return self._neighbor_silent > (beat.patience_s if beat.phase == START else self._of.hang_s)

    def _nobody_moves(self) -> bool:
        """Whether this rank and all others that have begun have been idle for too long."""
        if max(self._idle, self._unmoved / MOST) <= self._patience():
            return False
        return all(beat.idle for beat in self.beats().values())

    def _claimed(self) -> bool:
        """Say that there is a hang; whether nobody had said so before."""
        try:
            os.close(os.open(self._claim, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        except FileExistsError:
            return False
        except OSError:  # a full disk must not keep a hang alive
            pass
        with suppress(OSError):
            self._say(f"found by rank {self._of.rank}\n")
        return True

    def _judged(self) -> Verdict:
        """Let all write down where they are, and say who holds the run up."""
        stood_still, idle = self._stood_still(), max(self._idle, self._unmoved / MOST, self._neighbor_silent)
        dump_stacks(self._of.paths)
        before = self._all()
        for _ in range(LOOKS):
            time.sleep(self._of.beat_s)
            after = self._all()
        found = verdict(before, after, self._of.ranks, idle)
        names = stacks_file(self._of.paths).name.replace(f"_{self._of.rank}_", "_RANK_")
        return Verdict(found.ranks, f"{found.text}{stood_still}; stacks of all ranks: logs/{names}", found.ending)

    def _all(self) -> dict[int, Beat]:
        with suppress(OSError):
            self._beat()
        return self.beats()

    def _leave(self) -> None:
        """Another rank found a hang: write down where this one is, and end once that rank has told it."""
        dump_stacks(self._of.paths)
        for _ in range(LOOKS + 2):
            time.sleep(self._of.beat_s)
            with suppress(OSError):
                self._beat()
        end_here(Ending.hung)


def stacks_file(paths: JobPaths) -> Path:
    """Where a rank's stacks go."""
    return paths.folder / f"{paths.job_id}_{paths.task_id}_stacks.txt"


def dump_stacks(paths: JobPaths) -> None:
    """Write down where every thread of this process is, and ask its loader processes to do so in their log."""
    with suppress(OSError), stacks_file(paths).open("a") as stream:
        stream.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {socket.gethostname()} {position()}\n")
        stream.flush()
        faulthandler.dump_traceback(stream, all_threads=True)
        stream.flush()
    for child in _children():
        with suppress(psutil.Error):
            child.send_signal(signal.SIGQUIT)


def end_silent(beats: Mapping[int, Beat], found: Verdict) -> None:
    """Kill those of the guilty that are processes of this host: a stopped one cannot end by itself."""
    for rank in found.ranks:
        beat = beats.get(rank)
        if beat and beat.host == socket.gethostname() and beat.pid != os.getpid() and not is_gone(beat):
            with suppress(psutil.Error):
                process = psutil.Process(beat.pid)
                if RANK in process.cmdline():  # hosts of one name, or containers, have other processes of that number
                    process.kill()


def end_here(ending: Ending) -> NoReturn:
    """End this process with its loader processes, from whatever thread: the main one does not answer."""
    _end(ending.code)


def _end(code: int) -> NoReturn:
    for child in _children():
        with suppress(psutil.Error):
            child.kill()
    os._exit(code)


def _children() -> list[psutil.Process]:
    with suppress(psutil.Error):
        return psutil.Process().children(recursive=True)
    return []
