"""What ranks saw before training, and what follows from it (no torch here: the launcher knows the errors too)."""

from __future__ import annotations

import statistics
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from mmpretrain.config.health import HealthConfig
from mmpretrain.endings import Ending
from mmpretrain.words import listed

SLOW = 10.0  # times slower than is usual in the job: worth a warning
CLOCKS_S = 5.0
LEAST_SHARED_MB = 256.0
LEAST_CACHE_GB = 1.0
MB = 1e6


class HealthError(RuntimeError):
    """Nodes or devices failed the check before training. nodes: those to be left out next time, by Slurm's names;
    empty where nobody can tell which one it is."""

    ending = Ending.unhealthy

    def __init__(self, message: str, nodes: Sequence[str] = ()) -> None:
        self.nodes = tuple(nodes)
        super().__init__(message)


class WrongDeviceError(RuntimeError):
    """What a rank sees of its node's devices is not what was planned."""

    ending = Ending.setup


@dataclass(frozen=True)
class Seen:
    """What one rank sees of itself. node: by the name that Slurm has for it. versions: of packages, by name. code: a
    digest of the code that runs, None where another rank of the node tells. shared_mb: free in /dev/shm; cache_gb: free
    where shards of a URL are kept; None where these are not used."""

    rank: int
    node: str
    device: str
    identity: str | None
    free: int
    total: int
    right: bool
    versions: Mapping[str, str]
    code: str | None = None
    shared_mb: float | None = None
    cache_gb: float | None = None

    @property
    def place(self) -> str:
        """``rank 3 on node2``."""
        return f"rank {self.rank} on {self.node}"


@dataclass(frozen=True)
class Link:
    """What came to ``target`` from ``source`` (ranks): MB per second, 0 where it did not come, or came wrong."""

    source: int
    target: int
    rate: float
    problem: str | None = None


@dataclass
class Verdict:
    """problems, warnings: a sentence each. nodes: to be left out."""

    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    nodes: list[str] = field(default_factory=list)

    def add(self, other: Verdict) -> None:
        """Take in what another look found."""
        self.problems += other.problems
        self.warnings += other.warnings
        self.nodes += [node for node in other.nodes if node not in self.nodes]

    def to_json(self) -> dict[str, Any]:
        """For the other ranks."""
        return asdict(self)


def judge_ranks(seen: Sequence[Seen], settings: HealthConfig) -> Verdict:
    """What stands against the ranks, each by itself and beside the others."""
    found = Verdict()
    for rank in seen:
        if not rank.right:
            found.add(_bad(rank, f"{rank.place}: its {rank.device} multiplies wrongly"))
        if rank.identity is not None and rank.free < settings.least_free_memory * rank.total:
            found.add(_bad(rank, f"{rank.place}: {_memory(rank)} (health.least_free_memory)"))
    found.add(_shared_devices(seen))
    found.add(_versions(seen))
    found.add(_kinds(seen))
    found.add(_room(seen))
    return found


def judge_links(links: Sequence[Link], seen: Sequence[Seen], settings: HealthConfig) -> Verdict:
    """What stands against the network. A rank is to blame if even its best link is bad: a link has two ends."""
    node = {rank.rank: rank.node for rank in seen}
    found = Verdict()
    for within in (True, False):
        kind = [link for link in links if (node[link.source] == node[link.target]) is within]
        found.add(_judge_kind(kind, node, settings))
    return found


def judge_clocks(times: Sequence[float], seen: Sequence[Seen]) -> Verdict:
    """Clocks (in seconds since 1970) read at one moment."""
    usual = statistics.median(times)
    late = {rank.node: time - usual for rank, time in zip(seen, times, strict=True) if abs(time - usual) > CLOCKS_S}
    said = [
        f"the clock of {name} is {off:+.0f} s off: times in logs and records do not fit" for name, off in late.items()
    ]
    return Verdict(warnings=said)


def silent(answered: Iterable[int], seen: Sequence[Seen], limit_s: float) -> Verdict:
    """When some ranks said nothing within the limit."""
    missing = [rank for rank in seen if rank.rank not in set(answered)]
    nodes = list(dict.fromkeys(rank.node for rank in missing))
    places = listed(rank.place for rank in missing)
    said = f"{places} did not finish the exchange of data within {limit_s:.0f} s (health.limit_s)"
    # When all of several nodes hang, it is not one of them that is bad.
    alone = len(nodes) < len({rank.node for rank in seen})
    return Verdict(problems=[said], nodes=nodes if alone else [])


def rates(links: Sequence[Link]) -> dict[str, float] | None:
    """The slowest and the usual link, MB per second; None without links."""
    if not links:
        return None
    values = [link.rate for link in links]
    return {"min": round(min(values), 1), "median": round(statistics.median(values), 1)}


def _judge_kind(links: Sequence[Link], node: Mapping[int, str], settings: HealthConfig) -> Verdict:
    found = Verdict()
    if wrong := [link for link in links if link.problem]:
        said = listed((f"{_ends(link, node)}: {link.problem}" for link in wrong), most=3, between="; ")
        return Verdict(problems=[said], nodes=_blamed(wrong, links, node))
    if not links:
        return found
    usual = statistics.median(link.rate for link in links)
    least = settings.least_mb_per_s or 0.0
    if slow := [link for link in links if link.rate < least]:
        blamed = _blamed(slow, links, node)
        if blamed or len(slow) == len(links):
            slowest = min(slow, key=lambda link: link.rate)
            said = f"{listed(blamed) or 'the links between all nodes'}: {slowest.rate:.3g} MB/s at worst"
            said += f" ({_ends(slowest, node)}), and health.least_mb_per_s is {least:g}"
            return Verdict(problems=[said], nodes=blamed)
    if lame := [link for link in links if link.rate < max(usual / SLOW, least)]:
        said = listed((f"{_ends(link, node)} {link.rate:.3g} MB/s" for link in lame), most=3)
        found.warnings.append(f"slow links ({usual:.3g} MB/s is usual): {said}")
    return found


def _blamed(bad: Sequence[Link], links: Sequence[Link], node: Mapping[int, str]) -> list[str]:
    """Nodes with a rank all of whose links are bad, if others have good ones; else the one that most of them touch."""
    at, known = defaultdict(list), set(bad)
    for link in links:
        for rank in (link.source, link.target):
            at[rank].append(link)
    hopeless = list(dict.fromkeys(node[rank] for rank, its in sorted(at.items()) if known.issuperset(its)))
    nodes = {node[rank] for rank in at}
    if hopeless and len(hopeless) < len(nodes):
        return hopeless
    touched = Counter(name for link in bad for name in {node[link.source], node[link.target]}).most_common(2)
    alone = len(touched) == 1 or touched[0][1] > touched[1][1]
    wrong = any(link.problem for link in bad)
    return [touched[0][0]] if wrong and alone else []


def _ends(link: Link, node: Mapping[int, str]) -> str:
    return f"rank {link.source} ({node[link.source]}) -> rank {link.target} ({node[link.target]})"


def _bad(rank: Seen, said: str) -> Verdict:
    return Verdict(problems=[said], nodes=[rank.node])


def _memory(rank: Seen) -> str:
    free, total = rank.free / 2**30, rank.total / 2**30
    return f"{free:.1f} of {total:.1f} GiB of its {rank.device} are free, another process holds the rest"


def _shared_devices(seen: Sequence[Seen]) -> Verdict:
    """Ranks that compute on the same GPU."""
    users = defaultdict(list)
    for rank in seen:
        if rank.identity is not None:
            users[rank.identity].append(rank)
    said = [
        f"{listed(rank.place for rank in ranks)} have the same GPU ({identity}): let each task see all GPUs of its"
        " node, or one of its own"
        for identity, ranks in users.items()
        if len(ranks) > 1
    ]
    return Verdict(problems=said)  # the way tasks are bound is the same on any node: leaving one out helps nobody


def _versions(seen: Sequence[Seen]) -> Verdict:
    """Packages and code that are not the same everywhere: what they compute may differ, and nothing would show it."""
    found = Verdict()
    names = dict.fromkeys(name for rank in seen for name in rank.versions)
    for name in names:
        found.add(_unequal(name, {rank.rank: rank.versions.get(name, "none") for rank in seen}, seen))
    codes = {rank.rank: rank.code for rank in seen if rank.code is not None}
    found.add(_unequal("the code of the run", codes, seen))
    return found


def _unequal(name: str, values: Mapping[int, str], seen: Sequence[Seen]) -> Verdict:
    counts = Counter(values.values()).most_common()
    if len(counts) < 2:
        return Verdict()
    usual = counts[0][0]
    others = [rank for rank in seen if values.get(rank.rank, usual) != usual]
    said = listed(dict.fromkeys(f"{values[rank.rank]} on {rank.node}" for rank in others))
    clear = counts[0][1] > counts[1][1]
    nodes = list(dict.fromkeys(rank.node for rank in others)) if clear else []
    return Verdict(problems=[f"{name} is {usual} on {_holder(usual, values, seen)} and {said}"], nodes=nodes)


def _holder(value: str, values: Mapping[int, str], seen: Sequence[Seen]) -> str:
    return listed(dict.fromkeys(rank.node for rank in seen if values.get(rank.rank) == value), most=2)


def _kinds(seen: Sequence[Seen]) -> Verdict:
    """Devices of several kinds: all go at the pace of the slowest."""
    counts = Counter(rank.device for rank in seen).most_common()
    said = listed(f"{name} ({count} ranks)" for name, count in counts)
    return Verdict(warnings=[f"the ranks compute on devices of several kinds: {said}"] if len(counts) > 1 else [])


def _room(seen: Sequence[Seen]) -> Verdict:
    found = Verdict()
    for rank in seen:
        node = rank.node
        if rank.shared_mb is not None and rank.shared_mb < LEAST_SHARED_MB:
            found.warnings.append(
                f"{node} has {rank.shared_mb:.0f} MB free in /dev/shm, through which loader processes hand over batches"
                " (containers: --shm-size or --ipc=host)"
            )
        if rank.cache_gb is not None and rank.cache_gb < LEAST_CACHE_GB:
            found.warnings.append(
                f"{node} has {rank.cache_gb:.2f} GB for the shards of URLs: let $MMPRETRAIN_CACHE name a larger disk"
            )
    return found
