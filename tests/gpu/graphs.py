"""Losses captured in a CUDA graph, forward and backward pass, and replayed on other embeddings."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from mmpretrain.config.objective import Fused, ObjectiveConfig, Products
from mmpretrain.distributed.world import World
from mmpretrain.losses.contrastive import Pair, contrastive
from mmpretrain.losses.sigmoid import sigmoid_contrastive

ROWS, WIDTH = 2048, 256
LIMIT = 1e-3  # of the largest entry: gradients of bfloat16 products may be rounded the other way
FORMS = {
    f"{loss}, fused {fused}": (loss, fused)
    for loss in ("InfoNCE", "sigmoid")
    for fused in (Fused.never, Fused.auto, Fused.entries)
}


def step_of(loss: str, fused: Fused, inputs: list[Tensor]) -> Callable[[], list[Tensor]]:
    """Loss and gradients of query, key [b, d], scale [1] and bias [1], as in a run: nothing asks what numbers are."""
    query, key, scale, bias = inputs
    settings = ObjectiveConfig(keep_mb=0, products=Products.bfloat16, fused=fused)
    world = World(device=query.device, even=True, ahead=True)

    def step() -> list[Tensor]:
        pair = [Pair(query, key)]
        if loss == "sigmoid":
            (found,) = sigmoid_contrastive(pair, scale=scale, bias=bias, world=world, settings=settings, metrics=False)
        else:
            (found,) = contrastive(pair, scale=scale, world=world, settings=settings, metrics=False)
        wanted = inputs if loss == "sigmoid" else inputs[:3]
        return [found.loss, *torch.autograd.grad(found.loss, wanted)]

    return step


def captured(step: Callable[[], list[Tensor]], device: torch.device) -> Callable[[], list[Tensor]]:
    """What replays ``step``; on a CPU, which has no graphs, ``step`` itself."""
    if device.type != "cuda":
        return step
    side = torch.cuda.Stream(device)
    side.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(side):
        for _ in range(3):  # kernels are compiled and workspaces allocated before anything is captured
            step()
    torch.cuda.current_stream(device).wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        results = step()

    def replay() -> list[Tensor]:
        graph.replay()
        return results

    return replay


def lines(device: torch.device, small: bool) -> Iterator[dict[str, object]]:
    """A check per loss and form."""
    for name, (loss, fused) in FORMS.items():
        try:
            off = _worst(loss, fused, device, (64, 32) if small else (ROWS, WIDTH))
            wrong = None if off <= LIMIT else f"a replay is off by {off:.2g}"
        except Exception as error:  # every form has its turn
            wrong = f"{type(error).__name__}: {error}".splitlines()[0]
        yield {"check": f"captured, {name}", "wrong": wrong}


def _worst(loss: str, fused: Fused, device: torch.device, shape: tuple[int, int]) -> float:
    """The largest difference of a replay from the same step as usual, as a share of the largest entry."""
    draw = torch.Generator().manual_seed(3)
    first, second = ([torch.randn(shape, generator=draw).to(device) for _ in range(2)] for _ in range(2))
    numbers = [torch.tensor([10.0], device=device), torch.tensor([-5.0], device=device)]
    inputs = [tensor.requires_grad_() for tensor in (*first, *numbers)]
    step = step_of(loss, fused, inputs)
    before = [tensor.detach().clone() for tensor in step()]
    replay = captured(step, device)
    with torch.no_grad():
        for tensor, other in zip(inputs[:2], second, strict=True):
            tensor.copy_(other)
    found = [tensor.detach().clone() for tensor in replay()]
    expected = step()
    if torch.equal(found[0], before[0]):
        raise AssertionError("a replay gives the loss of the embeddings that were captured, not of the new ones")
    return max(((a - b).abs().max() / b.abs().max()).item() for a, b in zip(found, expected, strict=True))
