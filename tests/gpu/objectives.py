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

MAY_WAIT = ("mucmm", "missing")  # torch checks decompositions; batch norms of the samples that are there need a size


@contextmanager
def without_waits(allowed: bool) -> Iterator[None]:
    """Raise where the host waits for the device."""
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
    torch.cuda.synchronize()
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


def check(device: torch.device, limit: float = 1e-8) -> dict[str, str]:
    """Case -> what is wrong with it; empty if all agree."""
    wrong = {}
    for name in CASES:
        try:
            if not (off := worst(name, device)) <= limit:
                wrong[name] = f"off by {off:.2g}"
        except Exception as error:  # every case has its turn
            wrong[name] = f"{type(error).__name__}: {error}".splitlines()[0]
    return wrong


def _gradients(method: Method) -> dict[str, Tensor]:
    parts = {"model": method.model, "heads": method.heads}
    found = {f"{part}.{n}": p.grad for part, m in parts.items() for n, p in m.named_parameters()}
    return {name: gradient for name, gradient in found.items() if gradient is not None}
