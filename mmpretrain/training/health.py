"""The start of a run on a rank: choose a device, find the other ranks, and look at all of them."""

from __future__ import annotations

import os
from datetime import timedelta

import torch
import torch.distributed as dist
from torch.distributed.distributed_c10d import _get_default_store

from mmpretrain.config.root import Config
from mmpretrain.distributed.meeting import Place, met
from mmpretrain.run_folder import RunFolder
from mmpretrain.training.attempt import ATTEMPT
from mmpretrain.training.devices import choose_device
from mmpretrain.training.health_check import Check, OwnRank


def start(folder: RunFolder, config: Config) -> None:
    """Choose this rank's device, join the process group and, unless ``health.enabled`` is false, look at everything.

    RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT must be set; LOCAL_RANK becomes the device's index. A
    process group that is there already is used as it is.
    Raises HealthError on all ranks, WrongDeviceError on those that it concerns, MeetingError. Random numbers are left
    alone.
    """
    me = _this_rank()
    limit_s = config.engine.timeout_s
    if dist.is_initialized():
        if config.health.enabled:
            Check(folder, config, me, _get_default_store()).everything()
        return
    place = Place(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), os.environ.get(ATTEMPT, ""))
    with met(place, me.number, me.size, limit_s) as store:
        check = Check(folder, config, me, store) if config.health.enabled else None
        if check:
            check.ranks()
        # A group of one binds no device: its later groups would be split off it.
        bound = me.device if me.device.type == "cuda" and me.size > 1 else None
        dist.init_process_group(
            "nccl" if me.device.type == "cuda" else "gloo",
            store=store,
            rank=me.number,
            world_size=me.size,
            timeout=timedelta(seconds=limit_s),
            device_id=bound,
        )
        if check:
            check.links()


def _this_rank() -> OwnRank:
    local_rank, size = int(os.environ["LOCAL_RANK"]), int(os.environ["WORLD_SIZE"])
    per_node = int(os.environ.get("LOCAL_WORLD_SIZE", size))
    device = torch.device("cpu")
    # The launcher tells ranks that are to do without GPUs; others would silently compute on CPUs where none is seen.
    planned = ATTEMPT in os.environ and os.environ.get("DS_ACCELERATOR") != "cpu"
    if planned or torch.cuda.is_available():
        device = torch.device("cuda", choose_device(local_rank, per_node))
        torch.cuda.set_device(device)
    return OwnRank(int(os.environ["RANK"]), size, local_rank, per_node, device)
