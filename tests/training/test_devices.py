"""Which device a rank takes; GPUs are pretended."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest
import torch

from mmpretrain.endings import Ending, ending_of
from mmpretrain.training import devices
from mmpretrain.training.devices import choose_device, computes_right, device_facts
from mmpretrain.training.health_verdict import WrongDeviceError

Pretend = Callable[[int], None]


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> Pretend:
    """Pretend that this task sees so many."""
    monkeypatch.setenv("LOCAL_RANK", "3")
    monkeypatch.setenv("RANK", "11")

    def pretend(count: int) -> None:
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)

    return pretend


@pytest.mark.parametrize(("seen", "index"), [(4, 3), (8, 3), (1, 0)], ids=["all", "more", "one of its own"])
def test_a_rank_takes_its_own_of_several_or_the_one_it_sees(gpus: Pretend, seen: int, index: int) -> None:
    gpus(seen)
    assert choose_device(3, ranks=4) == index
    assert os.environ["LOCAL_RANK"] == str(index), "DeepSpeed and accelerate read it there"


@pytest.mark.parametrize("seen", [0, 2])
def test_too_few_for_the_ranks_of_the_node_are_refused(gpus: Pretend, seen: int) -> None:
    gpus(seen)
    with pytest.raises(WrongDeviceError, match=f"rank 11 on .* sees {seen} GPUs .* the node has 4 ranks") as error:
        choose_device(3, ranks=4)
    assert ending_of(error.value) is Ending.setup


def test_a_processor_that_multiplies_right_is_told_from_one_that_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = torch.device("cpu")
    assert computes_right(cpu)
    facts = device_facts(cpu)
    assert facts.right and facts.identity is None and 0 < facts.free <= facts.total
    multiply = torch.Tensor.__matmul__

    def flipped(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        product = multiply(left, right)
        if product.dtype is torch.float32:
            product[17, 5] += 1
        return product

    monkeypatch.setattr(torch.Tensor, "__matmul__", flipped)
    assert not computes_right(cpu)


def test_slices_of_one_gpu_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "MIG-a,MIG-b")
    assert devices._identity(torch.device("cuda", 1), "GPU-1") == "MIG-b"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    assert devices._identity(torch.device("cuda", 1), "GPU-1") == "GPU-1"
