"""Signs of life of a run's ranks, in files: who stands where, and who keeps the others waiting.

RUN/heartbeats/RANK.json is written over in place (a full disk does not stop that) by a thread of each rank. Clocks of
nodes are never compared: whether a rank lives is seen from the number of its look, which changes or does not.
"""

from __future__ import annotations

import json
import os
import socket
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType

import psutil

from mmpretrain.endings import Ending

HEARTBEATS = "heartbeats"  # folder of the signs of life in the run's
SIZE = 1024  # bytes of a file, so that it never grows
WAITING = ("/torch/distributed/", "/deepspeed/comm/")  # where ranks wait for one another
DEEPEST = 8  # frames in which a wait is looked for
ENDED = "ended"  # the phase of a rank that is through


@dataclass(frozen=True)
class Beat:
    """What a rank says of itself.

    attempt: which start of the job it belongs to. number: of the look. count: of its progress. idle_s: how long that
    thread saw nothing move in the main thread, patience_s: how long it may. where: the main thread is. waits: whether
    it waits for other ranks there.
    """

    attempt: str
    number: int
    host: str
    pid: int
    phase: str
    step: int
    count: int
    idle_s: float
    patience_s: float
    where: str
    waits: bool

    @property
    def idle(self) -> bool:
        """Whether it has shown no progress for longer than its phase may take."""
        return self.phase == ENDED or self.idle_s > self.patience_s


def beat_file(folder: Path, rank: int) -> Path:
    """Where a rank's sign of life lies. folder: of all of them."""
    return folder / f"{rank:05d}.json"


def write_beat(folder: Path, rank: int, beat: Beat) -> None:
    """Write a sign of life over the one before. Raises OSError."""
    text = json.dumps(asdict(beat))
    if len(text) > SIZE:
        text = json.dumps(asdict(beat) | {"where": ""})
    descriptor = os.open(beat_file(folder, rank), os.O_WRONLY | os.O_CREAT, 0o666)
    try:
        os.pwrite(descriptor, text.ljust(SIZE).encode(), 0)
    finally:
        os.close(descriptor)


def read_beat(folder: Path, rank: int, attempt: str) -> Beat | None:
    """The sign of life of a rank; None where there is none of this attempt (yet)."""
    try:
        beat = Beat(**json.loads(beat_file(folder, rank).read_text()))
    except (OSError, ValueError, TypeError):
        return None
    return beat if beat.attempt == attempt else None


def read_beats(folder: Path, ranks: int, attempt: str) -> dict[int, Beat]:
    """All of them, by rank."""
    found = {rank: read_beat(folder, rank, attempt) for rank in range(ranks)}
    return {rank: beat for rank, beat in found.items() if beat is not None}


def last_beats(folder: Path, rank: int, ranks: int) -> dict[int, Beat]:
    """Those of the start that ``rank`` belonged to, after its end; empty where it left none."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        attempt = json.loads(beat_file(folder, rank).read_text())["attempt"]
        return read_beats(folder, ranks, str(attempt))
    return {}


def place(frame: FrameType | None) -> tuple[str, bool]:
    """Where a thread is, in words, and whether it waits for other ranks there. frame: its innermost."""
    frames = []
    while frame is not None:
        frames.append(frame)
        frame = frame.f_back
    waits = any(part in f.f_code.co_filename for f in frames[:DEEPEST] for part in WAITING)
    ours = next((f for f in frames if "site-packages" not in f.f_code.co_filename and _is_ours(f)), None)
    told = ours or (frames[0] if frames else None)
    if told is None:
        return "nowhere", waits
    parts = Path(told.f_code.co_filename).parts[-3:]
    return f"{'/'.join(parts)}:{told.f_lineno} in {told.f_code.co_name}", waits


def _is_ours(frame: FrameType) -> bool:
    return not frame.f_code.co_filename.startswith((sys.base_prefix, "<"))


@dataclass(frozen=True)
class Verdict:
    """Who holds a run up. ranks: these. text: one line. ending: hung, or lost if they are gone."""

    ranks: tuple[int, ...]
    text: str
    ending: Ending


def verdict(before: Mapping[int, Beat], after: Mapping[int, Beat], ranks: int, idle_s: float) -> Verdict:
    """Who holds the others up, from two looks at all signs of life. idle_s: since when nothing moves.

    Those that are silent, else those that do not wait for others, else those that are behind, else those that are not
    where most are, else all.
    """
    missing = [rank for rank in range(ranks) if rank not in after]
    living = {rank: beat for rank, beat in after.items() if beat.phase != ENDED}
    silent = [rank for rank, beat in living.items() if rank in before and before[rank].number == beat.number]
    if missing or silent:
        return _silent(missing, silent, living, idle_s)
    busy = [rank for rank, beat in living.items() if not beat.waits]
    least = min((beat.count for beat in living.values()), default=0)
    behind = [rank for rank, beat in living.items() if beat.count == least]
    # A rank that waits for its GPU cannot be told from one that works on it; but most of them wait at the same place.
    guilty = next(
        (group for group in (busy, behind, _apart(living)) if group and len(group) < len(living)), sorted(living)
    )
    whom = _named(guilty, living)
    if len(guilty) == len(living) and ranks > 1:
        elsewhere = [rank for rank in guilty if living[rank].where != living[guilty[0]].where]
        also = f"; {_plural(elsewhere[:1])} at {living[elsewhere[0]].where}" if elsewhere else ""
        text = f"all ranks hang for {idle_s:.0f} s, {_where(living, guilty)}{also}"
    else:
        text = f"{whom} for {idle_s:.0f} s in {_where(living, guilty)}{_others(living, guilty)}"
    return Verdict(tuple(guilty), text, Ending.hung)


def _apart(living: Mapping[int, Beat]) -> list[int]:
    """The ranks that are not where more than half of all are; none where there is no such place."""
    for where, times in Counter(beat.where for beat in living.values()).most_common(1):
        if 2 * times > len(living):
            return [rank for rank, beat in living.items() if beat.where != where]
    return []


def _silent(missing: Sequence[int], silent: Sequence[int], living: Mapping[int, Beat], idle_s: float) -> Verdict:
    gone = [rank for rank in silent if is_gone(living[rank])]
    if missing:
        text = f"{_plural(missing)} never answered since the job started{_others(living, silent)}"
        return Verdict((*missing, *silent), text, Ending.hung)
    if gone and len(gone) == len(silent):
        text = f"{_plural(gone)} (on {living[gone[0]].host}) is gone in {_where(living, gone)}: killed from outside"
        return Verdict(tuple(gone), text, Ending.lost)
    held = [rank for rank in silent if rank not in gone]
    text = (
        f"{_plural(held)} (on {living[held[0]].host}, process {living[held[0]].pid}) hangs: it stopped answering in"
        f" {_where(living, held)}{_others(living, held)}, nothing moved for {idle_s:.0f} s"
    )
    return Verdict(tuple(held), text, Ending.hung)


def is_gone(beat: Beat) -> bool:
    """Whether a process of this host is no more; False for those of other hosts, which cannot be seen."""
    if beat.host != socket.gethostname():
        return False
    with suppress(psutil.Error):
        return psutil.Process(beat.pid).status() == psutil.STATUS_ZOMBIE
    return not psutil.pid_exists(beat.pid)


def _named(ranks: Sequence[int], beats: Mapping[int, Beat]) -> str:
    verb = "hangs" if len(ranks) == 1 else "hang"
    return f"{_plural(ranks)} (on {beats[ranks[0]].host}) {verb}"


def _where(beats: Mapping[int, Beat], ranks: Sequence[int]) -> str:
    """The phase and step of the first of ``ranks``, and the place of it."""
    beat = beats[ranks[0]]
    step = f"after step {beat.step}" if beat.step else "before the first step"
    return f"phase {beat.phase} {step}, at {beat.where}"


def _others(beats: Mapping[int, Beat], guilty: Sequence[int]) -> str:
    places = Counter(beat.where for rank, beat in beats.items() if rank not in guilty)
    if not places:
        return ""
    where, _ = places.most_common(1)[0]
    return f"; {'the others wait' if places.total() > 1 else 'the other waits'} at {where}"


def _plural(ranks: Sequence[int]) -> str:
    shown = ", ".join(map(str, ranks[:8])) + (f" and {len(ranks) - 8} more" if len(ranks) > 8 else "")
    return f"rank {shown}" if len(ranks) == 1 else f"ranks {shown}"
