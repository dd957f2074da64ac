"""Every method's objective on a CUDA device against the CPU's, in float64, with waits for the device as errors."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor, nn

from mmpretrain.distributed.world import World
from mmpretrain.methods.base import Method
from tests.methods.test_parity import CASES
from tests.methods.toys import make_batch, make_method, make_step

LIMIT = 1e-8
MAY_WAIT = ("mucmm", "missing")  # torch checks decompositions; batch norms of the samples that are there need a size


def synchronize(device: torch.device) -> None:
    """Wait until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@contextmanager
def without_waits(allowed: bool) -> Iterator[None]:
    """Raise where the host waits for the device; a CPU knows no waits."""
    if not torch.cuda.is_available():
        yield
        return
    torch.cuda.set_sync_debug_mode("default" if allowed else "error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def worst(name: str, device: torch.device) -> float:
    """The largest difference of a case's loss and gradients, beside the largest of each."""
    config, epoch = CASES[name]
    here, step = make_method(config), make_step(epoch)
    there = copy.deepcopy(here)
    for module in (there.model, there.heads, there.critics):
        nn.Module.to(module, device)
    batch = make_batch(config)
    moved, world = batch.to(device), World(device=device, even=True, ahead=True)
    prepared = there.prepare(moved, step)
    synchronize(device)
    with without_waits(any(word in name for word in MAY_WAIT)):
        total = there.objective(there.encode(there.model, prepared), step, world).total
        total.backward()
    expected = here.objective(
        here.encode(here.model, here.prepare(batch, step)), step, replace(World.single(), even=True)
    ).total
    expected.backward()
    found = [(total.detach().cpu(), expected.detach())]
    known = _gradients(here)
    found += [(gradient.cpu(), known[name]) for name, gradient in _gradients(there).items()]
    return max(((a - b).abs().max() / b.abs().max().clamp(min=1e-3)).item() for a, b in found if b.numel())


def lines(device: torch.device, small: bool) -> Iterator[dict[str, object]]:
    """A check per case. small: only every eighth."""
    for name in list(CASES)[:: 8 if small else 1]:
        try:
            off = worst(name, device)
            wrong = None if off <= LIMIT else f"off by {off:.2g}"
        except Exception as error:  # every case has its turn
            wrong = f"{type(error).__name__}: {error}".splitlines()[0]
        yield {"check": f"objective {name}", "wrong": wrong}


def _gradients(method: Method) -> dict[str, Tensor]:
    parts = {"model": method.model, "heads": method.heads}
    found = {f"{part}.{n}": p.grad for part, m in parts.items() for n, p in m.named_parameters()}
    return {name: gradient for name, gradient in found.items() if gradient is not None}
