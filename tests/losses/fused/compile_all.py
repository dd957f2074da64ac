"""Compiles every form of the kernels for a GPU, on a machine that has none; prints what each form takes.

Run with an argument, the compute capability (90): ``python -m tests.losses.fused.compile_all 90``.
"""

from __future__ import annotations

import os
import sys
from typing import Any

os.environ.pop("TRITON_INTERPRET", None)
import torch
import triton
from triton.backends.compiler import GPUTarget

from mmpretrain.config.objective import Fused, HardNegatives, ObjectiveConfig, Products
from mmpretrain.distributed.world import World
from mmpretrain.losses.contrastive import Diagonal, Labels, Mixup, Pair, Soft, contrastive
from mmpretrain.losses.fused import choice, launch
from mmpretrain.losses.sigmoid import sigmoid_contrastive
from mmpretrain.losses.targets import Targets

ROWS, WIDTH = 32, 64


class Driver:
    """Stands for a GPU: the compiler asks it what to compile for."""

    def __init__(self, capability: int) -> None:
        self.target = GPUTarget("cuda", capability, 32)

    def get_current_target(self) -> GPUTarget:
        """The GPU."""
        return self.target

    def get_current_device(self) -> int:
        """Its number."""
        return 0

    def get_current_stream(self, device: int) -> int:
        """Where nothing is queued."""
        return 0


class Compiled:
    """Stands for a kernel: instead of running, it is compiled, and what it takes is noted under its name."""

    def __init__(self, kernel: Any, found: dict[str, list[Any]]) -> None:
        self.kernel, self.found = kernel, found

    def __getitem__(self, grid: tuple[int, ...]) -> Any:
        def compile_it(*args: Any, **options: Any) -> None:
            made = self.kernel.warmup(*args, grid=grid, **options)
            forms = self.found.setdefault(self.kernel.fn.__name__, [])
            if all(made is not form for form in forms):
                forms.append(made)

        return compile_it


def compile_all(capability: int) -> dict[str, list[Any]]:
    """By kernel's name, what was compiled while the losses were asked for everything once."""
    triton.runtime.driver.set_active(Driver(capability))
    choice._lacks = lambda device: ""  # type: ignore[assignment]
    found: dict[str, list[Any]] = {}
    for name in ("forward_tile", "backward_tile", "sigmoid_tile"):
        setattr(launch, name, Compiled(getattr(launch, name), found))
    for products, fused in ((Products.bfloat16, Fused.auto), (Products.float32, Fused.auto)):
        for keep_mb in (0, 64):
            ask(ObjectiveConfig(products=products, fused=fused, keep_mb=keep_mb), torch.float32)
    ask(ObjectiveConfig(keep_mb=0), torch.float64)
    return found


def ask(settings: ObjectiveConfig, dtype: torch.dtype) -> None:
    """Every kind of targets with masks and copies, and without; hard negatives; the sigmoid loss."""
    query, key = (torch.randn(ROWS, WIDTH, dtype=dtype, requires_grad=True) for _ in range(2))
    valid, ids = torch.rand(ROWS) > 0.2, torch.arange(ROWS) % 30
    lam, further = torch.rand(ROWS, dtype=dtype), torch.randn(ROWS, 1, WIDTH, dtype=dtype)
    kinds: list[Targets] = [
        Diagonal(),
        Labels(ids % 5),
        Mixup(lam, 1 - lam, ids.flip(0)),
        Soft(key.detach(), scale=2.0),
    ]
    pairs = [Pair(query, key, kind) for kind in kinds] + [Pair(query, key, same_side=True)]
    masked = [Pair(query, key, kind, query_valid=valid, key_valid=valid) for kind in kinds]
    masked.append(Pair(query, key, key_negatives=further, key_negatives_valid=valid[:, None]))
    world, scale = World.single(), torch.tensor([10.0], dtype=dtype)
    for some, copies in ((pairs, None), (masked, ids)):
        for found in contrastive(some, scale=scale, world=world, settings=settings, sample_ids=copies):
            found.loss.backward(retain_graph=True)
    plain, own = masked[-1:], ObjectiveConfig(**(vars(settings) | {"hard_negatives": HardNegatives.own}))
    for some, chosen in ((pairs[:1], settings), (plain, settings), (plain, own)):
        for found in sigmoid_contrastive(
            some, scale=scale, bias=-10.0, world=world, settings=chosen, sample_ids=None if some is not plain else ids
        ):
            found.loss.backward(retain_graph=True)


if __name__ == "__main__":
    for name, forms in compile_all(int(sys.argv[1])).items():
        shared = sorted(form.metadata.shared for form in forms)
        print(f"{name}: {len(forms)} forms, at most {shared[-1]} bytes of shared memory")
