"""Every method's objective on the pretended device: the CPU's numbers, without a wait and without a mix of devices."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from mmpretrain.data.augment import constants, images
from mmpretrain.data.batch import Batch
from mmpretrain.data.step import Step
from mmpretrain.distributed.world import World
from mmpretrain.methods.base import Method
from tests.data.augment.small_batches import everything, flat, view
from tests.methods.test_parity import CASES
from tests.methods.toys import make_batch, make_method, make_step
from tests.pretended import PretendedDevice
from tests.pretended.tensor import CUDA, Pretended

# Where torch's own code in C++ makes zeros or a range, it takes the pretended device for the CPU: backward passes of
# parts of a tensor, and one_hot. On a GPU it makes them there.
OF_TORCH = ("stack at test_methods", "cat at test_methods", "eq at factorcl.py")


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    """No constants of another device."""
    yield
    constants.constant.cache_clear()
    images._color_basis.cache_clear()


def run(method: Method, batch: Batch, step: Step, world: World) -> Tensor:
    """The step up to its gradients; the loss."""
    prepared = method.prepare(batch, step)
    total = method.objective(method.encode(method.model, prepared), step, world).total
    total.backward()
    return total


def gradients(method: Method) -> dict[str, Tensor]:
    parts = {"model": method.model, "heads": method.heads}
    found = {f"{part}.{n}": p.grad for part, m in parts.items() for n, p in m.named_parameters()}
    return {name: below(grad) for name, grad in found.items() if grad is not None}


def below(tensor: Tensor) -> Tensor:
    return tensor.below if isinstance(tensor, Pretended) else tensor


def on_device(method: Method, device: PretendedDevice) -> Method:
    """Its modules are shared by several of its attributes, which a copy keeps."""
    found = copy.deepcopy(method)
    for module in (found.model, found.heads, found.critics):
        assert isinstance(module, nn.Module)
        device.module(module)
    return found


@pytest.mark.parametrize("name", CASES)
def test_an_objective_gives_the_cpus_numbers_without_waiting(name: str) -> None:
    config, epoch = CASES[name]
    method, batch, when = make_method(config), make_batch(config), make_step(epoch)
    with PretendedDevice() as device:
        there = on_device(method, device)
        moved = batch.to(CUDA)
        device.log.clear()
        found = run(there, moved, when, device.world(ahead=True))
    expected = run(method, batch, when, replace(World.single(), even=True))
    torch.testing.assert_close(below(found.detach()), expected.detach(), rtol=1e-12, atol=1e-12)
    expected_gradients = gradients(method)
    for grad_name, grad in gradients(there).items():
        torch.testing.assert_close(grad, expected_gradients[grad_name], rtol=1e-9, atol=1e-12, msg=grad_name)
    assert not [mix for mix in device.log.mixes if not mix.startswith(OF_TORCH)]
    assert device.log.syncs == []


def test_augmentations_of_every_kind_wait_for_nothing_once_their_constants_are_there() -> None:
    config, batch = everything()
    expected = flat(view(config, batch))
    with PretendedDevice() as device:
        moved = batch.to(CUDA)
        view(config, moved)
        device.log.clear()
        found = flat(view(config, moved, seed=1))
        assert not device.log.syncs and not device.log.mixes and not device.log.copies
        found = flat(view(config, moved))
    for name, tensor in found.items():
        torch.testing.assert_close(below(tensor), expected[name])
