"""What the nodes of a partition offer, from sinfo's words; and which of their GPUs a run asks for."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

# A state's first word; what follows it (~ # % $ @ ^ -) says that a node sleeps, wakes or is planned: it may be used.
UNUSABLE = {
    *("down", "drain", "drained", "draining", "drng", "fail", "failing", "failg", "unknown", "unk", "inval", "future"),
    *("futr", "error", "perfctrs", "npc"),
}
SILENT = "*"
SLICE = re.compile(r"(?:^|[_-])\d+g\.\d+gb")  # a part of a GPU (MIG): 1g.5gb, a100_3g.20gb
UNTYPED = ""


@dataclass(frozen=True)
class Node:
    """One node: CPUs, memory in MB, GPUs by their type ("" where Slurm knows none), features."""

    name: str
    usable: bool = True
    cpus: int = 0
    memory: int = 0
    gpus: dict[str, int] = field(default_factory=dict)
    features: frozenset[str] = frozenset()

    @classmethod
    def read(cls, line: str) -> Node:
        """From a line of ``slurm_client.node_lines``."""
        name, state, cpus, memory, resources, features = line.split("|", 5)
        return cls(
            name,
            re.split(r"[^a-z]", state.lower())[0] not in UNUSABLE and SILENT not in state,
            int(cpus.rstrip("+")),
            int(float(memory.rstrip("+"))),
            gpus_of(resources),
            frozenset(features.split(",")),
        )


def gpus_of(resources: str) -> dict[str, int]:
    """GPUs by type in sinfo's list of generic resources, such as ``gpu:a100:4(S:0-1),gpu:1g.5gb:7,mps:400``."""
    found: Counter[str] = Counter()
    for entry in re.findall(r"(?:[^,(]|\([^)]*\))+", resources):
        name, *words = re.sub(r"\(.*?\)", "", entry).strip().split(":")
        if name != "gpu":  # mps and shard are shares of the GPUs that are counted here
            continue
        words = [word for word in words if word != "no_consume"]
        count = int(words.pop()) if words and words[-1].isdigit() else 1
        found[words[0] if words else UNTYPED] += count
    return {kind: count for kind, count in found.items() if count}


def has_features(node: Node, constraint: str | None) -> bool:
    """Whether a node satisfies a constraint of names with ``&`` and ``|``; other forms are left to Slurm: True."""
    if constraint is None or re.search(r"[^\w.&|,:+-]", constraint):
        return True
    return any(
        all(name in node.features for name in re.split("[&,]", choice) if name) for choice in constraint.split("|")
    )


@dataclass(frozen=True)
class Gpus:
    """What each node is asked for. kind: the type that Slurm is told, None where it need not be. note: why."""

    count: int = 0
    kind: str | None = None
    note: str = ""


class GpuError(ValueError):
    """The nodes do not have such GPUs; the message says what they have."""


def choose_gpus(
    found: Sequence[Node], nodes: int, where: str, kind: str | None = None, count: int | None = None
) -> Gpus:
    """GPUs of one type that ``nodes`` of the nodes have.

    where: the partition, in words. kind: the type to take, by default that of most nodes, MIG slices aside. count: per
    node, by default as many as most of these nodes have, or as ``nodes`` of them have.

    Raises GpuError.
    """
    offered = _by_kind([node for node in found if node.usable]) or _by_kind(found)
    whole = {name: counts for name, counts in offered.items() if not SLICE.search(name)}
    among = {name: counts for name, counts in offered.items() if name == kind} if kind else whole
    if not among:
        if offered and not kind and count is None:
            raise GpuError(
                f"{where} has slices of GPUs alone ({_others(offered)}): to run ranks on one kind of them, set gpu_type"
                " in the profile; gpus_per_node: 0 runs on CPUs"
            )
        if kind or count:
            has = f"its nodes have {_others(offered)}" if offered else "its nodes have no GPUs"
            raise GpuError(f"{where} has no {f'GPUs of type {kind}' if kind else 'whole GPUs'}: {has}")
        return Gpus()
    enough = {name: counts for name, counts in among.items() if _with_at_least(counts, count or 1) >= nodes}
    name = max(enough or among, key=lambda name: (len(among[name]), max(among[name]), name))
    counts = among[name]
    most = count or _usual(counts, nodes)
    having = _with_at_least(counts, most)
    if having < nodes:
        raise GpuError(
            f"{_words(most, name)} on each of {nodes} nodes: {where} has {_others({name: counts})}; ask for fewer"
        )
    rest = _others({other: counts for other, counts in offered.items() if other != name})
    note = f"{_words(most, name)} per node, as {where} says ({having} {'node' if having == 1 else 'nodes'})"
    if fewer := len(counts) - having:
        note += f"; {fewer} others have fewer"
    return Gpus(most, name if kind or (name and rest) else None, note + (f"; not used there: {rest}" if rest else ""))


def _by_kind(found: Sequence[Node]) -> dict[str, list[int]]:
    """Of each type, how many of it each node has that has any."""
    kinds: dict[str, list[int]] = {}
    for node in found:
        for kind, count in node.gpus.items():
            kinds.setdefault(kind, []).append(count)
    return kinds


def _usual(counts: Sequence[int], nodes: int) -> int:
    """The number that most nodes have; a smaller one where ``nodes`` of them would not have it."""
    usual, _ = max(Counter(counts).items(), key=lambda pair: (pair[1], pair[0]))
    if _with_at_least(counts, usual) >= nodes or len(counts) < nodes:
        return usual
    return sorted(counts, reverse=True)[nodes - 1]


def _with_at_least(counts: Sequence[int], least: int) -> int:
    return sum(count >= least for count in counts)


def _words(count: int, kind: str) -> str:
    return f"{count} x {kind}" if kind else f"{count} GPUs" if count > 1 else "1 GPU"


def _others(offered: dict[str, list[int]]) -> str:
    words = [
        f"{_words(number, kind)} on {nodes} {'node' if nodes == 1 else 'nodes'}"
        for kind, counts in sorted(offered.items())
        for number, nodes in sorted(Counter(counts).items(), reverse=True)
    ]
    return ", ".join(words)
