"""The contrastive loss on one GPU, bfloat16 products, d = 1024; not yet run anywhere: no figures exist.

    python -m benchmarks.gpu [--quick]

Ours (plain and compiled) beside open_clip's ClipLoss, a dense loss on cached embeddings (as gradient caching uses it)
and Inf-CL's kernels, for whole batches of 32k, 64k and 128k; and the loss's share of a step of a ViT-B/16 (random
weights) with 1024 images, as one of 32 made-up ranks. Memory is what torch allocates beyond the inputs. What is
predicted to need more than 60 % of the GPU's memory is left out. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
import time
from collections.abc import Callable

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import functional as F

from benchmarks.measure import MEMORY_SHARE, MIB, finish, show
from benchmarks.others import INF_CL, OPEN_CLIP, install, open_clip_losses
from mmpretrain.config.objective import ObjectiveConfig, Products
from mmpretrain.distributed.world import World
from mmpretrain.losses.contrastive import Pair, contrastive

WIDTH = 1024
RANKS, LOCAL_BATCH = 32, 1024

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]  # query, key [b, d], scale [1] -> scalar


def ours(compiled: bool, world: World | None = None) -> Loss:
    """contrastive() with bfloat16 products."""
    settings = ObjectiveConfig(keep_mb=0, products=Products.bfloat16, compile=compiled, tile=4096)

    def loss(query: Tensor, key: Tensor, scale: Tensor) -> Tensor:
        here = world or World.single()
        return contrastive([Pair(query, key)], scale=scale, world=here, settings=settings, metrics=False)[0].loss

    return loss


def dense(query: Tensor, key: Tensor, scale: Tensor) -> Tensor:
    """The whole matrix once, under autocast."""
    with torch.autocast(query.device.type, torch.bfloat16):
        logits = scale * F.normalize(query) @ F.normalize(key).T
        targets = torch.arange(len(query), device=query.device)
        return (F.cross_entropy(logits, targets) + F.cross_entropy(logits.T, targets)) / 2


def others() -> dict[str, Loss]:
    """Losses of those packages that can be installed."""
    found: dict[str, Loss] = {}
    if folder := install(OPEN_CLIP):
        clip = open_clip_losses(folder).ClipLoss()

        def open_clip(query: Tensor, key: Tensor, scale: Tensor) -> Tensor:
            with torch.autocast(query.device.type, torch.bfloat16):
                return clip(F.normalize(query), F.normalize(key), scale)

        found["open_clip"] = open_clip
    if folder := install(INF_CL):
        sys.path.append(str(folder))
        from inf_cl import cal_flash_loss

        def inf_cl(query: Tensor, key: Tensor, scale: Tensor) -> Tensor:
            query, key = F.normalize(query), F.normalize(key)
            return (cal_flash_loss(query, key, scale=scale) + cal_flash_loss(key, query, scale=scale)).mean() / 2

        found["Inf-CL"] = inf_cl
    return found


def leaves(rows: int, device: str) -> list[Tensor]:
    """Query and key [rows, WIDTH], each beside its noisy counterpart, and the scale's logarithm."""
    torch.manual_seed(0)
    query = torch.randn(rows, WIDTH, device=device)
    key = query + 2 * torch.randn_like(query)
    return [tensor.requires_grad_() for tensor in (query, key, torch.tensor([-math.log(0.07)], device=device))]


def timed(step: Callable[[], object], steps: int) -> tuple[float, float]:
    """Median seconds, and the peak of allocated MiB beyond what was allocated before."""
    step()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    seconds = []
    for _ in range(steps):
        torch.cuda.synchronize()
        start = time.perf_counter()
        step()
        torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds), (torch.cuda.max_memory_allocated() - before) / MIB


def loss_step(loss: Loss, inputs: list[Tensor]) -> Callable[[], float]:
    """Forward and backward pass."""

    def step() -> float:
        for leaf in inputs:
            leaf.grad = None
        value = loss(inputs[0], inputs[1], inputs[2].exp())
        value.backward()
        return value.item()

    return step


def compare(rows: int, steps: int) -> dict[str, tuple[float, float]]:
    """Seconds and MiB of all losses that fit."""
    losses = {"ours": ours(False), "ours, compiled": ours(True), "dense": dense, **others()}
    # Two float32 log-softmaxes and their gradients, two bfloat16 logits and theirs.
    fits = 24 * rows**2 <= MEMORY_SHARE * torch.cuda.get_device_properties(0).total_memory
    inputs = leaves(rows, "cuda")
    figures = {}
    for name, loss in losses.items():
        if fits or name not in ("dense", "open_clip"):
            figures[name] = timed(loss_step(loss, inputs), steps)
            torch.cuda.empty_cache()
    table = [[name, f"{1000 * seconds:.1f}", f"{memory:.0f}"] for name, (seconds, memory) in figures.items()]
    table += [[name, "left out: too large", ""] for name in losses if name not in figures]
    show(f"{rows} rows", ["loss", "ms", "MiB"], table)
    return figures


def share_of_step(steps: int) -> dict[str, float]:
    """Of an image tower's step: the loss of one of RANKS ranks beside the tower's forward and backward pass."""
    from torch.testing._internal.distributed.fake_pg import FakeStore
    from transformers import ViTConfig, ViTModel

    # A group whose collectives return at once: what the loss computes, without what it waits for.
    dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=RANKS)
    inputs = leaves(LOCAL_BATCH, "cuda")
    loss_s, _ = timed(loss_step(ours(True, World.current("cuda")), inputs), steps)
    tower: torch.nn.Module = ViTModel(ViTConfig(), add_pooling_layer=False)
    tower.cuda()
    images = torch.randn(LOCAL_BATCH, 3, 224, 224, device="cuda")

    def step() -> None:
        tower.zero_grad()
        with torch.autocast("cuda", torch.bfloat16):
            tower(images).last_hidden_state[:, 0].float().square().mean().backward()

    tower_s, _ = timed(step, steps)
    show(
        f"one of {RANKS} ranks", ["part", "ms"], [["loss", f"{1e3 * loss_s:.1f}"], ["ViT-B/16", f"{1e3 * tower_s:.1f}"]]
    )
    return {"loss_s": loss_s, "tower_s": tower_s, "share": loss_s / (loss_s + tower_s)}


def main() -> None:
    """Tables and JSON; without a GPU one sentence of why not."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="32k rows, fewer steps")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        print(json.dumps({"skipped": "this benchmark needs a GPU, and torch sees none here"}))
        return
    steps = 3 if options.quick else 10
    sizes = [2**15] if options.quick else [2**15, 2**16, 2**17]
    losses = {rows: compare(rows, steps) for rows in sizes}
    finish({"losses": losses, "step": share_of_step(steps), "gpu": torch.cuda.get_device_name()})


if __name__ == "__main__":
    main()
