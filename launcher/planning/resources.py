"""Where a run will run, and with how many ranks."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from enum import Enum, StrEnum
from pathlib import Path

from launcher.slurm import client as slurm_client
from launcher.slurm.fit import Wanted
from launcher.slurm.partition import PartitionError, find_place, fit_problems, gpus_there
from launcher.slurm.profiles import Profile, ProfileError, load_profile, profile_notes
from launcher.slurm.submitting_shell import with_shell

NVIDIA_SMI_S = 10
RANKS_WITHOUT_GPUS = {"local": 2, "slurm": 1}


class Cluster(StrEnum):
    """Processes on this machine, or a job for Slurm."""

    local = "local"
    slurm = "slurm"


class Purpose(Enum):
    """A dry run only shows the plan, so it may describe machines that are not at hand."""

    run = "run"
    show = "show"


@dataclass(frozen=True)
class Request:
    """What the command line asks for.

    gpus_per_node: ranks per node. cluster: auto, local, slurm or a profile. config_dir: the user's own choices and
    profiles; None: the shipped ones alone.
    """

    nodes: int = 1
    gpus_per_node: int | None = None
    cluster: str = "auto"
    purpose: Purpose = Purpose.run
    config_dir: Path | None = None

    def problems(self) -> list[str]:
        """What is impossible, one sentence each."""
        found = [f"--nodes {self.nodes}: at least 1 node is needed"] if self.nodes < 1 else []
        if self.gpus_per_node is not None and self.gpus_per_node < 1:
            found.append(f"--gpus-per-node {self.gpus_per_node}: at least 1 rank per node is needed")
        return found


@dataclass(frozen=True)
class Resources:
    """Machines and processes of a run.

    gpus_per_node: devices asked for, 0 on CPUs. visible_gpus: local devices by the names in CUDA_VISIBLE_DEVICES.
    gpu_type: what Slurm calls those that are asked for, where it has to be told.
    """

    cluster: Cluster
    nodes: int
    ranks_per_node: int
    gpus_per_node: int
    visible_gpus: tuple[str, ...] = ()
    profile_name: str | None = None
    profile: Profile | None = None
    gpu_type: str | None = None

    @property
    def devices(self) -> int | str | None:
        """Devices of each node as Slurm is asked for them: ``4``, ``a100:4``; None on CPUs."""
        count = self.gpus_per_node or None
        return f"{self.gpu_type}:{count}" if count and self.gpu_type else count

    @property
    def world_size(self) -> int:
        """Ranks in all."""
        return self.nodes * self.ranks_per_node

    @property
    def layout(self) -> str:
        """World size and how it comes about."""
        nodes = "1 node" if self.nodes == 1 else f"{self.nodes} nodes"
        return f"{self.world_size} ranks ({nodes} x {self.ranks_per_node} per node)"


def choose(request: Request) -> tuple[Resources | None, list[str], list[str]]:
    """The resources for a request, notes about what was decided, and problems (then there are no resources)."""
    problems = request.problems()
    name = "default" if request.cluster in ("auto", "slurm", "local") else request.cluster
    try:
        profile = load_profile(name, request.config_dir)
    except ProfileError as error:
        problems += error.problems
    if problems:
        return None, [], problems
    if request.cluster == "local":
        return _local(request)
    profile, shell_notes = with_shell(profile)
    if found := profile.problems():
        return None, shell_notes, [f"with the SBATCH_* variables of this shell: {problem}" for problem in found]
    if slurm_client.responds():
        resources, notes, found = _on_cluster(request, name, profile)
        return resources, [*shell_notes, *notes], found
    # Only a real run falls back: a dry run for several nodes is about the cluster it will be sent to.
    if request.cluster == "auto" and (request.nodes == 1 or request.purpose is Purpose.run):
        return _local(request)
    if request.purpose is Purpose.run:
        fix = "start from a login node of the cluster, or use --cluster local"
        return None, [], [f"--cluster {request.cluster}: no Slurm answers here; {fix}"]
    note = f"no Slurm answers here, so no GPUs are asked for, unless the profile {name} says gpus_per_node"
    notes = [note] if profile.gpus_per_node is None else []
    notes += [*profile_notes(name, request.config_dir), *shell_notes]
    return _slurm(request, name, profile, profile.gpus_per_node or 0, profile.gpu_type), notes, []


def local_gpus() -> tuple[tuple[str, ...], list[str]]:
    """This machine's GPUs as CUDA_VISIBLE_DEVICES would name them, found without torch; and notes about that."""
    notes: list[str] = []
    driver = Path("/proc/driver/nvidia/gpus")
    count = len(list(driver.iterdir())) if driver.is_dir() else 0
    if not count and shutil.which("nvidia-smi"):
        try:
            count = _listed_gpus()
        except subprocess.TimeoutExpired:
            notes.append(f"nvidia-smi did not answer within {NVIDIA_SMI_S} s: no GPUs are used")
    allowed = os.environ.get("CUDA_VISIBLE_DEVICES")
    if not count or allowed is None:
        return tuple(map(str, range(count))), notes
    return tuple(name.strip() for name in allowed.split(",") if name.strip()), notes


def _listed_gpus() -> int:
    listing = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=NVIDIA_SMI_S)
    return 0 if listing.returncode else sum(line.startswith("GPU ") for line in listing.stdout.splitlines())


def _local(request: Request) -> tuple[Resources | None, list[str], list[str]]:
    gpus, notes = local_gpus()
    ranks = request.gpus_per_node or len(gpus) or RANKS_WITHOUT_GPUS["local"]
    if request.nodes > 1:
        why = "no Slurm answers here" if request.cluster == "auto" else "--cluster local was asked for"
        notes.append(
            f"{why}: instead of {request.nodes} nodes, {ranks} local ranks run on this machine;"
            " the global batch stays the same"
        )
    if gpus and ranks > len(gpus):
        fix = f"use at most {len(gpus)}, or set CUDA_VISIBLE_DEVICES= to run on CPUs"
        return None, notes, [f"--gpus-per-node {ranks}: this machine has {len(gpus)} GPUs; {fix}"]
    visible = gpus[:ranks]
    return Resources(Cluster.local, 1, ranks, len(visible), visible), notes, []


def _on_cluster(request: Request, name: str, profile: Profile) -> tuple[Resources | None, list[str], list[str]]:
    try:
        place = find_place(profile, name, request.nodes)
        gpus = gpus_there(place, profile, request.nodes, request.gpus_per_node)
        resources = _slurm(request, name, profile, gpus.count, gpus.kind)
        wanted = Wanted(request.nodes, resources.ranks_per_node, resources.gpus_per_node, gpus.kind)
        problems, fit_notes = fit_problems(place, profile, wanted)
    except PartitionError as error:
        return None, [], error.problems
    except slurm_client.SlurmError as error:
        return None, [], [f"what the nodes offer is not known ({error}): try again when Slurm answers"]
    notes = [gpus.note] if gpus.note else []
    return (None if problems else resources), [*notes, *fit_notes, *profile_notes(name, request.config_dir)], problems


def _slurm(request: Request, name: str, profile: Profile, gpus: int, kind: str | None) -> Resources:
    ranks = request.gpus_per_node or gpus or RANKS_WITHOUT_GPUS["slurm"]
    devices, kind = (ranks, kind) if gpus else (0, None)
    return Resources(Cluster.slurm, request.nodes, ranks, devices, profile_name=name, profile=profile, gpu_type=kind)
