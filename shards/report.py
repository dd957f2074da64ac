"""What a build did: counts, what was left out and why, and what is there twice."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from rich.console import Group, RenderableType
from rich.text import Text

from mmpretrain.console import table
from shards.build_plan import Job
from shards.build_shard import ShardRecord
from shards.sources.findings import MOST_EXAMPLES, Findings

REPORT_NAME = "report.json"


@dataclass
class Report:
    """What was read, written, left out and found; ``report.json`` in the dataset. The same for the same input.

    samples, shards, bytes: by split. members: split -> ``NAME.EXT`` -> count. labels: split -> class -> count.
    dropped and notes: reason -> {"count", "examples"}.
    duplicates: modality -> {"samples", "across_splits", "examples"}.
    """

    read: int = 0
    written: int = 0
    samples: dict[str, int] = field(default_factory=dict)
    shards: dict[str, int] = field(default_factory=dict)
    bytes: dict[str, int] = field(default_factory=dict)
    members: dict[str, dict[str, int]] = field(default_factory=dict)
    modalities: dict[str, dict[str, Any]] = field(default_factory=dict)
    classes: int | None = None
    labels: dict[str, dict[str, int]] = field(default_factory=dict)
    dropped: dict[str, Any] = field(default_factory=dict)
    duplicates: dict[str, Any] = field(default_factory=dict)
    notes: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> str:
        """Text of report.json."""
        return json.dumps(asdict(self), indent=1, ensure_ascii=False) + "\n"

    def view(self) -> RenderableType:
        """The report for people."""
        rows = [
            (split, count, self.shards[split], megabytes(self.bytes[split]), _listed(self.members[split]))
            for split, count in self.samples.items()
        ]
        parts: list[RenderableType] = [table("", ("split", "samples", "shards", "size", "members"), rows)]
        left = self.read - self.written
        if left:
            parts.append(Text(f"{left} of {self.read} samples are left out"))
        parts += [*_findings(self.dropped), *_duplicates(self.duplicates), *_findings(self.notes)]
        return Group(*parts)


class Tally:
    """Adds up the records of shards, which must come in the order of the jobs."""

    def __init__(self) -> None:
        self.report = Report()
        self.gray: dict[str, bool] = {}
        self._dropped = Findings()
        self._digests: dict[str, list[np.ndarray]] = {}
        self._places: dict[str, list[tuple[int, int]]] = {}

    def add(self, number: int, job: Job, record: ShardRecord) -> None:
        """One more shard, the ``number``-th job's."""
        report = self.report
        report.read += record.seen
        report.written += len(record.keys)
        report.samples[job.split] = report.samples.get(job.split, 0) + len(record.keys)
        report.shards[job.split] = report.shards.get(job.split, 0) + bool(record.keys)
        report.bytes[job.split] = report.bytes.get(job.split, 0) + record.bytes
        _add_counts(report.members.setdefault(job.split, {}), record.members)
        _add_counts(report.labels.setdefault(job.split, {}), record.labels)
        for modality, gray in record.gray.items():
            self.gray[modality] = self.gray.get(modality, True) and gray
        for modality, digests in record.digests.items():
            self._digests.setdefault(modality, []).append(np.array([bytes.fromhex(d) for d in digests], "S16"))
            self._places.setdefault(modality, []).append((number, len(digests)))
        self._dropped.merge(record.dropped)

    def finish(self, jobs: list[Job], record_of: Callable[[int], ShardRecord], notes: Findings) -> Report:
        """The report. record_of: the record of the n-th job, for the few keys that it names."""
        self.report.dropped = self._dropped.to_json()
        self.report.notes = notes.to_json()
        self.report.labels = {
            split: dict(sorted(counts.items(), key=lambda item: int(item[0])))
            for split, counts in self.report.labels.items()
            if counts
        }
        for modality in self._digests:
            found = self._find_duplicates(modality, jobs, record_of)
            if found:
                self.report.duplicates[modality] = found
        return self.report

    def _find_duplicates(
        self, modality: str, jobs: list[Job], record_of: Callable[[int], ShardRecord]
    ) -> dict[str, Any]:
        """How many samples repeat the bytes of another one, how many contents lie in two splits, and the first ones."""
        digests = np.concatenate(self._digests[modality])
        places = self._places[modality]
        ends = np.cumsum([count for _, count in places])
        _, group, counts = np.unique(digests, return_inverse=True, return_counts=True)
        group = group.reshape(-1)
        absent = digests == b""
        repeated = np.flatnonzero((counts[group] > 1) & ~absent)
        if not len(repeated):
            return {}
        shard_of = np.searchsorted(ends, repeated, side="right")
        split_names = sorted({job.split for job in jobs})
        split_of = np.array([split_names.index(jobs[places[s][0]].split) for s in shard_of.tolist()])
        pairs = np.unique(np.stack([group[repeated], split_of]), axis=1)
        across = int((np.unique(pairs[0], return_counts=True)[1] > 1).sum())
        first = list(dict.fromkeys(group[repeated].tolist()))[:MOST_EXAMPLES]
        named: dict[int, list[str]] = {g: [] for g in first}
        for position, shard in zip(repeated.tolist(), shard_of.tolist(), strict=True):
            keys = named.get(int(group[position]))
            if keys is not None and len(keys) < 3:
                number, count = places[shard]
                key = record_of(number).keys[position - int(ends[shard]) + count]
                keys.append(f"{jobs[number].split}/{key}")
        surplus = len(repeated) - len(np.unique(group[repeated]))
        return {"samples": surplus, "across_splits": across, "examples": [" = ".join(named[g]) for g in first]}


def megabytes(count: int) -> str:
    """A size for people."""
    return f"{count / 1e9:,.1f} GB" if count >= 1e9 else f"{count / 1e6:,.1f} MB"


def _add_counts(total: dict[str, int], counts: dict[str, int]) -> None:
    for name, count in counts.items():
        total[name] = total.get(name, 0) + count


def _listed(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} ({count})" for name, count in sorted(counts.items()))


def _findings(found: dict[str, Any]) -> Iterable[Text]:
    for reason, entry in found.items():
        yield Text(f"{reason}: {entry['count']}{_examples(entry['examples'], entry['count'])}")


def _duplicates(found: dict[str, Any]) -> Iterable[Text]:
    for modality, entry in found.items():
        across = entry["across_splits"]
        where = f", and {across} lie in two splits" if across else ""
        shown = _examples(entry["examples"], None)
        yield Text(f"{modality}: {entry['samples']} repeat the bytes of another sample (kept){where}{shown}")


def _examples(examples: list[str], count: int | None) -> str:
    if not examples:
        return ""
    more = "; ..." if count is None or count > 3 else ""
    return f" ({'; '.join(examples[:3])}{more})"
