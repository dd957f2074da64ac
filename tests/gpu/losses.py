"""Losses on a CUDA device, by kernels and by torch's operations, against float64 on the CPU, and beside each other."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from mmpretrain.config.objective import Fused, ObjectiveConfig, Products
from mmpretrain.losses.fused.choice import obstacle
from tests.losses.fused.outcomes import CLOSE, KINDS, apart, outcome

Line = dict[str, object]

# Of the largest entry. On a CPU, by torch's operations and at SHAPE, the worst are 1.3e-6 and 5.1e-3.
LIMITS = {Products.float32: 1e-5, Products.bfloat16: 2e-2}
FORMS = {Products.float32: (Fused.never, Fused.auto), Products.bfloat16: (Fused.never, Fused.auto, Fused.entries)}
SHAPE, SMALL = (1500, 200), (30, 24)  # no tile or block ends where these do
DIFFERENTIABLE = (0, 3, 4, 5)  # loss and gradients; ranks of neighbors change with the last digit


def lines(device: torch.device, small: bool) -> Iterator[Line]:
    """Checks and a table: every kind of targets by every form. small: two kinds."""
    if device.type == "cuda":  # some containers allow TF32
        torch.backends.cuda.matmul.allow_tf32 = False
    why_not = obstacle(ObjectiveConfig(), device)
    yield {"table": "kernels of losses/fused", "device": str(device), "used": why_not or "yes"}
    for kind in KINDS[:: 5 if small else 1]:
        for products, forms in FORMS.items():
            yield from _compared(kind, products, forms if not why_not else forms[:1], device, SMALL if small else SHAPE)


def _compared(
    kind: str, products: Products, forms: tuple[Fused, ...], device: torch.device, shape: tuple[int, int]
) -> Iterator[Line]:
    """forms: the first is torch's own operations, which the others are held against."""
    right = outcome(kind, _settings(Products.float32, Fused.never), shape=shape, dtype=torch.float64)
    plain: list[Tensor] = []
    for form in forms:
        name = f"{kind}, products {products}, fused {form}"
        try:
            found = _on_cpu(outcome(kind, _settings(products, form), shape=shape, device=str(device)))
        except Exception as error:  # every form has its turn
            yield {"check": name, "wrong": f"{type(error).__name__}: {error}".splitlines()[0]}
            continue
        plain = plain or found
        far, beside = (_differences(found, other) for other in (right, plain))
        yield {"check": f"{name}, against float64", "wrong": _beyond(max(far), LIMITS[products])}
        if form is not Fused.never:
            yield {"check": f"{name}, beside torch's", "wrong": _beyond(max(beside), CLOSE[products])}
        row = {"targets": kind, "products": str(products), "fused": str(form)}
        yield {"table": "differences, as shares of the largest entry", **row, **_figures(far, beside)}


def _settings(products: Products, fused: Fused) -> ObjectiveConfig:
    return ObjectiveConfig(keep_mb=0, products=products, fused=fused)


def _on_cpu(tensors: list[Tensor]) -> list[Tensor]:
    return [tensor.detach().cpu().double() for tensor in tensors]


def _differences(found: list[Tensor], other: list[Tensor]) -> list[float]:
    return apart([found[i] for i in DIFFERENTIABLE], [other[i].detach() for i in DIFFERENTIABLE])


def _beyond(difference: float, limit: float) -> str | None:
    """nan is beyond any limit."""
    return None if difference <= limit else f"off by {difference:.2g}, the limit is {limit:.2g}"


def _figures(far: list[float], beside: list[float]) -> Line:
    return {
        "loss, from float64": far[0],
        "gradients, from float64": max(far[1:]),
        "loss, from torch's": beside[0],
        "gradients, from torch's": max(beside[1:]),
    }
