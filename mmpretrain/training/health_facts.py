"""What a rank tells of itself before training."""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import platform
import shutil
import socket
from dataclasses import asdict
from pathlib import Path

import torch

import mmpretrain
from mmpretrain.config.root import Config
from mmpretrain.data.cache import cache_folder
from mmpretrain.training.devices import device_facts
from mmpretrain.training.health_verdict import MB, Seen
from mmpretrain.words import texts_in

PACKAGES = ("accelerate", "deepspeed", "numpy", "torch", "transformers")  # what computes
SHARED = Path("/dev/shm")


def look(config: Config, rank: int, local_rank: int, device: torch.device) -> Seen:
    """This rank, its device and its node. local_rank: as Slurm counts; the first one looks at what all share."""
    found = device_facts(device)
    first = local_rank == 0
    return Seen(
        rank=rank,
        node=os.environ.get("SLURMD_NODENAME") or socket.gethostname(),
        device=found.name,
        identity=found.identity,
        free=found.free,
        total=found.total,
        right=found.right,
        versions=versions(device),
        code=code_digest() if first else None,
        shared_mb=_free(SHARED) / MB if first and config.data.workers and SHARED.exists() else None,
        cache_gb=_room_for_shards() / 1e9 if first and _remote(config) else None,
    )


def versions(device: torch.device) -> dict[str, str]:
    """Of Python and of what computes, by name."""
    found = {"python": platform.python_version(), **{name: _version(name) for name in PACKAGES}}
    if device.type == "cuda":
        found |= {"CUDA": str(torch.version.cuda), "NCCL": ".".join(map(str, torch.cuda.nccl.version()))}
    return found


def code_digest() -> str:
    """Of the files that this process runs: nodes that see another copy would compute something else."""
    digest = hashlib.sha256()
    folder = Path(mmpretrain.__file__).parent
    for path in sorted(folder.rglob("*.py")):
        digest.update(str(path.relative_to(folder)).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:12]


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "none"


def _remote(config: Config) -> bool:
    """Whether shards come from a URL."""
    return any("://" in text for text in texts_in(asdict(config.data)))


def _room_for_shards() -> int:
    """Bytes that the node's cache has, or can still take."""
    shards = cache_folder() / "shards"
    held = sum(path.stat().st_size for path in shards.iterdir()) if shards.is_dir() else 0
    return held + _free(cache_folder())


def _free(path: Path) -> int:
    """Bytes free on the disk of a path, or of the nearest folder above it that is there."""
    while not path.exists() and path != path.parent:
        path = path.parent
    return shutil.disk_usage(path).free
