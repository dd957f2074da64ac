"""What a run's folder says about its course: jobs that worked on it, checkpoints, samples that could not be read."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

STARTED = re.compile(r"\((\d{4}-\d\d-\d\d \d\d:\d\d:\d\d)[^)]*\) - Starting with JobEnvironment\(job_id=([^,)]+)")
NAMES = re.compile(r"'[^']*'|\"[^\"]*\"|\d+")  # what differs between samples that fail alike
FIRST = 4096  # characters of a log that say when it began


@dataclass(frozen=True)
class Attempt:
    """A job that worked on the run. ended: when it last wrote into its log. ranks: how many wrote one."""

    job: str
    started: datetime
    ended: datetime
    ranks: int = 1

    @property
    def minutes(self) -> float:
        """How long it wrote."""
        return max(0.0, (self.ended - self.started).total_seconds() / 60)


def read_attempts(logs: Path) -> list[Attempt]:
    """One per job, in their order, from the logs of their first ranks."""
    found: dict[str, Attempt] = {}
    for path in sorted(logs.glob("*_log.out")):
        with path.open(encoding="utf-8", errors="replace") as stream:
            begin = STARTED.search(stream.read(FIRST))
        if begin:
            ended = datetime.fromtimestamp(path.stat().st_mtime)
            started = datetime.fromisoformat(begin[1])
            known = found.get(begin[2])
            last, ranks = (max(ended, known.ended), known.ranks + 1) if known else (ended, 1)
            found[begin[2]] = Attempt(begin[2], started, last, ranks)
    return sorted(found.values(), key=lambda attempt: attempt.started)


def read_quarantine(path: Path) -> Counter[str]:
    """Cause, without names and numbers -> how many samples were replaced for it."""
    causes: Counter[str] = Counter()
    if path.is_file():
        with path.open(encoding="utf-8", errors="replace") as stream:
            for text in stream:
                try:
                    line = json.loads(text)
                except ValueError:
                    continue
                cause = str(line.get("error", "unknown")) if isinstance(line, dict) else "unknown"
                causes[NAMES.sub("…", cause)] += 1
    return causes
