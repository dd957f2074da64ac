"""Which device a rank computes on, and whether it computes right."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass

import psutil
import torch
from torch import Tensor

from mmpretrain.training.health_verdict import WrongDeviceError

SIDE = {"cpu": 256, "cuda": 2048}  # of the matrices multiplied
TIMES = {"cpu": 1, "cuda": 8}


@dataclass(frozen=True)
class DeviceFacts:
    """A rank's device. identity: the same for two ranks that share one; None for CPUs. free, total: bytes of its
    memory. right: whether a product of known result came out right."""

    name: str
    identity: str | None
    free: int
    total: int
    right: bool


def choose_device(local_rank: int, ranks: int) -> int:
    """The index of this rank's device among those it sees, which DeepSpeed and accelerate take from LOCAL_RANK: it is
    set here. ranks: of this node.

    A task that sees one GPU alone (``--gpus-per-task``, ``--gpu-bind=single:1``) takes that one. Raises
    WrongDeviceError where a rank sees no GPU, or fewer than the node has ranks.
    """
    count = torch.cuda.device_count()
    index = local_rank
    if count == 1:
        index = 0  # whether others of this node have the same one, the check before training tells
    elif count < ranks:
        raise WrongDeviceError(
            f"rank {os.environ.get('RANK')} on {socket.gethostname()} sees {count} GPUs"
            f" (CUDA_VISIBLE_DEVICES={os.environ.get('CUDA_VISIBLE_DEVICES')}) and the node has {ranks} ranks: let each"
            " task see all GPUs of its node, or one of its own"
        )
    os.environ["LOCAL_RANK"] = str(index)
    return index


def device_facts(device: torch.device) -> DeviceFacts:
    """Look at a device; takes a moment."""
    right = computes_right(device)
    if device.type != "cuda":
        memory = psutil.virtual_memory()
        return DeviceFacts("CPU", None, memory.available, memory.total, right)
    properties = torch.cuda.get_device_properties(device)
    free, total = torch.cuda.mem_get_info(device)
    return DeviceFacts(properties.name, _identity(device, str(properties.uuid)), free, total, right)


def computes_right(device: torch.device) -> bool:
    """Whether products of whole numbers come out right to the last bit.

    The numbers are so small that float32, and the shorter types that a GPU may use for it, are exact in any order.
    """
    side = SIDE.get(device.type, SIDE["cpu"])
    left, right, probe = _numbers(side, 7, 3), _numbers(side, 5, 11), _numbers(side, 3, 2)[:, :2]
    expected = left.double() @ (right.double() @ probe.double())
    here = [matrix.to(device) for matrix in (left, right)]
    return all(_same(here[0] @ here[1], probe, expected) for _ in range(TIMES.get(device.type, 1)))


def _same(product: Tensor, probe: Tensor, expected: Tensor) -> bool:
    """Whether a product times ``probe`` is what the factors one after another gave, which is cheaper to compute."""
    return bool(torch.equal(product.cpu().double() @ probe.double(), expected))


def _numbers(side: int, row: int, column: int) -> Tensor:
    """[side, side], whole numbers from -2 to 2."""
    rows, columns = torch.arange(side)[:, None], torch.arange(side)[None, :]
    return ((rows * row + columns * column + rows * columns % 13) % 5 - 2).float()


def _identity(device: torch.device, uuid: str) -> str:
    """What tells the device from all others; slices of one GPU (MIG) have names of their own."""
    seen = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")]
    index = device.index or 0
    return seen[index] if index < len(seen) and seen[index].startswith("MIG-") else uuid
