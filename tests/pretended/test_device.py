"""The pretended device sees what a GPU would have minded, in code with faults that were put there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from mmpretrain.distributed.sending import sent
from tests.pretended import PretendedDevice

Fault = Callable[[Tensor], object]
WAITS: dict[str, Fault] = {
    "item": lambda rows: rows.sum().item(),
    "bool": lambda rows: bool((rows > 0).all()),
    "float": lambda rows: float(rows.sum()),
    "tolist": lambda rows: rows.tolist(),
    "cpu": lambda rows: rows.cpu(),
    "nonzero": lambda rows: rows.nonzero(),
    "unique": lambda rows: rows.unique(),
    "masked select": lambda rows: rows[rows > 0],
    "a mask that is written to": lambda rows: rows.index_put((rows[:, 0] > 0,), rows[0]),
    "a number of the host": lambda rows: torch.tensor([1.0], device=rows.device),
    "new_tensor": lambda rows: rows.new_tensor([1.0]),
    "an index of the host": lambda rows: rows[[0, 1]],
    "pageable memory": lambda rows: torch.ones(3).to(rows.device, non_blocking=True),
    "pinned memory that is waited for": lambda rows: torch.ones(3).pin_memory().to(rows.device),
    "eigenvalues": lambda rows: torch.linalg.eigvalsh(rows @ rows.T),
}
MIXES: dict[str, Fault] = {
    "a constant of the CPU": lambda rows: rows + torch.ones(4),
    "a matrix of the CPU": lambda rows: rows @ torch.ones(4, 2),
    "a row of the CPU among others": lambda rows: torch.cat([rows, torch.ones(1, 4)]),
}
FINE: dict[str, Fault] = {
    "a number": lambda rows: rows * 2.0 + torch.zeros(()),
    "made there": lambda rows: torch.arange(4, device=rows.device) + torch.full((4,), 2.0, device=rows.device),
    "sent": lambda rows: rows + sent(torch.ones(4), rows.device),
    "filled by a mask": lambda rows: rows.masked_fill(rows > 0, 0.0),
}


def ran(fault: Fault) -> PretendedDevice:
    with PretendedDevice() as device:
        fault(device.tensor(torch.randn(3, 4)))
    return device


@pytest.mark.parametrize("name", WAITS)
def test_what_waits_for_the_device_is_seen(name: str) -> None:
    log = ran(WAITS[name]).log
    assert log.syncs and "test_device.py" in log.syncs[0] and not log.mixes


@pytest.mark.parametrize("name", MIXES)
def test_a_cpu_tensor_among_those_of_the_device_is_seen(name: str) -> None:
    log = ran(MIXES[name]).log
    assert log.mixes and "test_device.py" in log.mixes[0]


@pytest.mark.parametrize("name", FINE)
def test_what_is_as_it_should_be_is_not(name: str) -> None:
    log = ran(FINE[name]).log
    assert not log.syncs and not log.mixes and log.launched


def test_a_cpu_tensor_in_a_collective_is_seen() -> None:
    with PretendedDevice() as device, device.alone(2):
        world, rows = device.world(2), device.tensor(torch.ones(2))
        summed: Any = world.all_reduce_sum(rows)
        assert summed.below.tolist() == [2, 2] and not device.log.mixes
        world.all_reduce_sum(torch.ones(2))
    assert len(device.log.mixes) == 1


def test_kernels_bytes_and_memory_are_counted() -> None:
    with PretendedDevice(meta=True) as device:
        rows = device.sizes(1024, 256, requires_grad=True)
        assert device.log.live == device.log.peak == 2**20
        (rows * 2).sum().backward()
        assert device.log.launches["mul"] == 2 and device.log.launches["sum"] == 1
        assert device.log.moved >= 3 * 2**20 and device.log.peak >= 2 * 2**20
