"""What a run will need, in the words of its plan, beside what its machines have (docs/prediction.md). No torch here."""

from __future__ import annotations

import math
import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from launcher.planning.resources import NVIDIA_SMI_S, Cluster, Resources
from mmpretrain.config.root import Config
from mmpretrain.engine.checkpoint_files import steps
from mmpretrain.run_folder import RunFolder

GIB = 2**30
WRITE_MB_PER_S = 1000  # of a node, where the profile does not say
Foretold = Mapping[str, Any]  # as mmpretrain/training/prediction/predict.py makes it


def device_words(resources: Resources) -> list[str]:
    """What the preflight is told of the ranks' devices."""
    if not resources.gpus_per_node:
        return []
    memory = gpu_bytes(resources)
    return ["gpu" if memory is None else f"gpu={memory}"]


def gpu_bytes(resources: Resources) -> int | None:
    """Memory of a GPU, the smallest if they differ: of this machine's, or as the profile says; None: not known."""
    profile = resources.profile
    if profile is not None and profile.gpu_memory_gib is not None:
        return profile.gpu_memory_gib * GIB
    if resources.cluster is not Cluster.local or not shutil.which("nvidia-smi"):
        return None
    command = ["nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=NVIDIA_SMI_S)
    except (OSError, subprocess.TimeoutExpired):
        return None
    sizes = [int(line) for line in done.stdout.split() if line.isdigit()]
    return min(sizes) * 2**20 if sizes and done.returncode == 0 else None


def prediction_lines(foretold: Foretold | None, resources: Resources) -> dict[str, str]:
    """Rows of the summary; none without a prediction."""
    if foretold is None:
        return {}
    found = {}
    if (memory := foretold["memory"]) is not None:
        parts = [(name, memory[name]) for name in _PARTS if memory[name]]
        listed = ", ".join(f"{name} {_size(value)}" for name, value in parts)
        host = f"; {_size(memory['host'])} in the host's memory" if memory.get("host") else ""
        found["memory"] = f"{_size(memory['total'])} per rank at most ({listed}){_of_gpu(resources)}{host}"
    if (wire := foretold["wire"]) is not None and wire["sent"]:
        found["network"] = f"each rank sends {_size(wire['sent'])} per step"
    saved = foretold["checkpoint"]
    seconds = seconds_to_save(foretold, resources)
    rate = write_rate(resources)
    found["checkpoint"] = f"{_size(saved['files'])}, about {seconds:.3g} s to write at {rate} MB/s per node"
    return found


_PARTS = (
    "weights", "masters", "optimizer", "average", "gradients", "gathered", "activations", "inputs", "loss",
)  # fmt: skip


def prediction_notes(foretold: Foretold | None, config: Config, resources: Resources, folder: Path) -> list[str]:
    """What will not suffice: the time to save before the job's end, and the disk that the run folder lies on."""
    if foretold is None:
        return []
    notes, profile, seconds = [], resources.profile, seconds_to_save(foretold, resources)
    # The one that is being written beside training is completed before the last one is begun.
    saves = 2 if config.checkpoint.background else 1
    if resources.cluster is Cluster.slurm and profile is not None and saves * seconds > profile.signal_lead_s:
        two = ", up to two may have to be written before the job ends" if saves > 1 else ""
        notes.append(
            f"a checkpoint takes about {seconds:.0f} s at {write_rate(resources)} MB/s per node{two}, and signal_lead_s"
            f" is {profile.signal_lead_s}: set signal_lead_s to {10 * math.ceil(saves * seconds / 10)} or more in the"
            f" profile {resources.profile_name}, or write_mb_per_s to what the disk does"
        )
    needed, free = disk_bytes(foretold, config, len(steps(RunFolder(folder).checkpoints))), _free(folder)
    if free is not None and needed > free:
        notes.append(
            f"checkpoints and the release need about {_size(needed)}, and {_size(free)} are free where {folder} lies:"
            " set run.root to another disk, or lower checkpoint.keep_last"
        )
    return notes


def write_rate(resources: Resources) -> int:
    """MB that a node writes per second."""
    profile = resources.profile
    return profile.write_mb_per_s if profile is not None and profile.write_mb_per_s is not None else WRITE_MB_PER_S


def seconds_to_save(foretold: Foretold, resources: Resources) -> float:
    """Of the first node, which writes most."""
    saved = foretold["checkpoint"]
    return (saved["first"] + (resources.ranks_per_node - 1) * saved["other"]) / write_rate(resources) / 1e6


def disk_bytes(foretold: Foretold, config: Config, there: int = 0) -> int:
    """The most that comes into the run folder: checkpoints that stay, but for those that are there already, the one
    being written, the best, the release."""
    settings, saved = config.checkpoint, foretold["checkpoint"]
    total = max(1, config.total_steps)
    kept = min(settings.keep_last, -(-total // settings.every_steps)) + 1
    kept += total // settings.keep_every if settings.keep_every else 0
    kept += bool(config.evaluation.best.score)
    return int(max(1, kept - there) * saved["files"] + 2 * saved["release"])


def _free(folder: Path) -> int | None:
    """Free bytes where ``folder`` lies, or will lie."""
    for place in (folder, *folder.parents):
        if place.exists():
            try:
                disk = os.statvfs(place)
            except OSError:
                return None
            return disk.f_bavail * disk.f_frsize
    return None


def _of_gpu(resources: Resources) -> str:
    memory = gpu_bytes(resources) if resources.gpus_per_node else None
    return "" if memory is None else f"; a GPU has {_size(memory)}"


def _size(count: float) -> str:
    for unit, size in (("GiB", GIB), ("MiB", 2**20)):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return f"{count / 1024:.3g} KiB"
