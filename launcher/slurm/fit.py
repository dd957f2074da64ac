"""Whether Slurm could ever start a job: what it knows beforehand, instead of a job that waits for ever."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from launcher.slurm.nodes import Node
from launcher.slurm.options import memory
from launcher.slurm.profiles import Profile

UNLIMITED = ("UNLIMITED", "INFINITE", "NONE", "N/A")
_TIME = re.compile(r"(?:(\d+)-)?(\d+):(\d+):(\d+)")


@dataclass(frozen=True)
class Wanted:
    """What a run asks of each of its nodes. kind: a type of GPU, None for any; gpus: of it."""

    nodes: int
    ranks: int
    gpus: int = 0
    kind: str | None = None


def node_problems(found: Sequence[Node], wanted: Wanted, profile: Profile, where: str) -> tuple[list[str], list[str]]:
    """Problems (no such nodes) and notes (there are, but not now). found: the nodes that the profile admits.

    where: the partition, in words.
    """
    cpus = wanted.ranks * (profile.cpus_per_task or 1)
    megabytes = memory(profile.mem)[1] if profile.mem else 0
    ranks = "1 rank" if wanted.ranks == 1 else f"{wanted.ranks} ranks"
    gpus = f"{wanted.gpus} x {wanted.kind or 'GPU'}"
    needs = [
        ("", lambda node: True, ""),
        (
            f" with {cpus} CPUs ({ranks} per node, each with {profile.cpus_per_task or 1})",
            lambda node: node.cpus >= cpus,
            "CPUs",
        ),
        (f" with {profile.mem} of memory", lambda node: node.memory >= megabytes, "memory"),
        (f" with {gpus}", lambda node: _gpus(node, wanted.kind) >= wanted.gpus, "GPUs"),
    ]
    left, asked = list(found), ""
    for words, fits, what in needs:
        fitting = [node for node in left if fits(node)]
        if len(fitting) < wanted.nodes:
            has = f"{len(fitting)} of them" if what else _nodes(len(fitting))
            most = _most(left, what, wanted.kind)
            return [f"--nodes {wanted.nodes}{asked}{words}: {where} has {has}{most}; ask for less"], []
        asked += words if what and len(fitting) < len(left) else ""
        left = fitting
    usable = sum(node.usable for node in left)
    if usable < wanted.nodes:
        return [], [f"only {usable} of the {len(left)} fitting nodes of {where} can be used now: the job waits"]
    return [], []


def partition_problems(
    name: str, facts: Mapping[str, str], wanted: Wanted, profile: Profile
) -> tuple[list[str], list[str]]:
    """Problems and notes about a partition's own limits. facts: as of ``slurm_client.partition_facts``."""
    limits, problems, notes = [], [], []
    if (most := _minutes(facts.get("MaxTime", ""))) is not None and profile.time_limit_min > most:
        limits.append(f"time_limit_min is {profile.time_limit_min}: partition {name} allows {most}")
    if facts.get("MaxNodes", "").isdigit() and wanted.nodes > int(facts["MaxNodes"]):
        limits.append(f"--nodes {wanted.nodes}: partition {name} allows {facts['MaxNodes']} for a job")
    if profile.qos:  # which may lift both
        notes += [f"{limit}, unless the qos {profile.qos} allows more" for limit in limits]
    else:
        problems += limits
    for key, fact in (("account", "AllowAccounts"), ("qos", "AllowQos")):
        allowed, value = facts.get(fact, "ALL"), getattr(profile, key)
        if value and allowed not in ("ALL", "(null)", "N/A") and value.lower() not in allowed.lower().split(","):
            problems.append(f"{key} {value}: partition {name} takes only {allowed}")
    if (state := facts.get("State", "UP")) != "UP":
        notes.append(f"partition {name} is {state}: Slurm starts no jobs there now")
    return problems, notes


def _minutes(text: str) -> int | None:
    """A time as scontrol writes it, in minutes; None for no limit."""
    found = _TIME.fullmatch(text)
    if text in UNLIMITED or found is None:
        return None
    days, hours, minutes, seconds = (int(part or 0) for part in found.groups())
    return days * 1440 + hours * 60 + minutes + (seconds > 0)


def _gpus(node: Node, kind: str | None) -> int:
    return node.gpus.get(kind, 0) if kind else max(node.gpus.values(), default=0)


def _most(nodes: Sequence[Node], what: str, kind: str | None) -> str:
    """How much the largest of the nodes has."""
    if what == "CPUs":
        return f" (at most {max(node.cpus for node in nodes)} CPUs)"
    if what == "memory":
        return f" (at most {max(node.memory for node in nodes)}M)"
    return f" (at most {max(_gpus(node, kind) for node in nodes)})" if what else ""


def _nodes(count: int) -> str:
    return f"{count} node" if count == 1 else f"{count} nodes"
