"""The partition that a job will be in: which one, what its nodes offer, and whether the job fits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from launcher.slurm import client as slurm_client
from launcher.slurm.fit import Wanted, node_problems, partition_problems
from launcher.slurm.nodes import GpuError, Gpus, Node, choose_gpus, has_features
from launcher.slurm.profiles import Profile
from mmpretrain.config.merging import nearest
from mmpretrain.words import listed


class PartitionError(ValueError):
    """There is no such partition, or the job could never run there; ``problems`` holds one sentence each."""

    def __init__(self, *problems: str) -> None:
        self.problems = list(problems)
        super().__init__("\n".join(problems))


@dataclass(frozen=True)
class Place:
    """A partition (or several, of which Slurm takes one), and the nodes there that a profile admits."""

    names: tuple[str, ...]
    words: str
    nodes: tuple[Node, ...]


def find_place(profile: Profile, profile_name: str, wanted: int = 1) -> Place:
    """Where a job of this profile will run. wanted: nodes. Raises PartitionError, SlurmError."""
    known = slurm_client.partitions()
    names = _names(profile, profile_name, known)
    nodes = _nodes(names, profile, wanted)
    words = f"partition{'s' if len(names) > 1 else ''} {' and '.join(names)}"
    words += "" if profile.partition else " (the default)"
    if profile.constraint:
        nodes = [node for node in nodes if has_features(node, profile.constraint)]
        words += f", constraint {profile.constraint},"
    return Place(names, words, tuple(nodes))


def _nodes(names: Sequence[str], profile: Profile, wanted: int) -> list[Node]:
    """Those of the partitions that the profile's ``exclude`` leaves, and of these its ``nodelist`` if it has as many as
    are wanted: Slurm adds others to a shorter one."""

    def read(among: str | None = None) -> list[Node]:
        return [Node.read(line) for line in slurm_client.node_lines(",".join(names), among)]

    asked = {key: value for key, value in profile.sbatch_options().items() if isinstance(value, str)}
    only, without = (_listed(asked.get(key)) for key in ("nodelist", "exclude"))
    left_out = {node.name for node in read(without)} if without else set()
    named = [node for node in read(only) if node.name not in left_out] if only else []
    return named if len(named) >= wanted else [node for node in read() if node.name not in left_out]


def _listed(nodes: str | None) -> str | None:
    """A list of nodes; None for a file that has one, which sbatch alone reads."""
    return nodes if nodes and "/" not in nodes else None


def gpus_there(place: Place, profile: Profile, nodes: int, ranks: int | None) -> Gpus:
    """The GPUs to ask for on each node. ranks: per node, of the command line. Raises PartitionError."""
    count = profile.gpus_per_node
    if count == 0:
        return Gpus()
    try:
        found = choose_gpus(place.nodes, nodes, place.words, profile.gpu_type, count and (ranks or count))
        if found.count and ranks:
            found = choose_gpus(place.nodes, nodes, place.words, profile.gpu_type, ranks)
    except GpuError as error:
        raise PartitionError(str(error)) from None
    return found


def fit_problems(place: Place, profile: Profile, wanted: Wanted) -> tuple[list[str], list[str]]:
    """Problems that would keep the job waiting for ever, and notes. Raises SlurmError."""
    problems, notes = node_problems(place.nodes, wanted, profile, place.words)
    limits = [partition_problems(name, slurm_client.partition_facts(name), wanted, profile) for name in place.names]
    if all(found for found, _ in limits):  # of several partitions one that takes the job is enough
        problems += [problem for found, _ in limits for problem in found]
    return problems, [*notes, *(note for _, found in limits for note in found)]


def _names(profile: Profile, profile_name: str, known: Sequence[str]) -> tuple[str, ...]:
    plain = [name.rstrip("*") for name in known]
    if profile.partition is None:
        if default := [name.rstrip("*") for name in known if name.endswith("*")]:
            return tuple(default)
        raise PartitionError(
            f"this cluster has no default partition: set partition in the profile {profile_name} ({listed(plain)})"
        )
    names = tuple(name.strip() for name in profile.partition.split(","))
    if missing := [
        f"partition {name}: Slurm has none of that name{nearest(name, plain)}; there are {listed(plain)}"
        for name in names
        if name not in plain
    ]:
        raise PartitionError(*missing)
    return names
