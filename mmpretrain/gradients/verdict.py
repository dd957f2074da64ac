"""Words for what a loss does on W processes: right, off by W or by 1/W, or in another direction."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import torch
from torch import Tensor

from mmpretrain.gradients.measure import Measured
from mmpretrain.gradients.question import TOLERANCES, Question


class Verdict(StrEnum):
    """How a value or a gradient on W processes relates to that of one process on the whole batch."""

    right = "right"
    """Equal, up to rounding."""

    times_world = "times W"
    """W times as large."""

    over_world = "times 1/W"
    """W times as small."""

    scaled = "other factor"
    """The right direction, and another length."""

    direction = "other direction"
    """No multiple of it."""

    missing = "no gradient"
    """None, where one process gives one."""

    not_finite = "not finite"
    """nan or infinite."""


@dataclass(frozen=True)
class Row:
    """What: the value, or what a gradient belongs to. factor: along the exact one. cosine: with it."""

    processes: int
    what: str
    verdict: Verdict
    factor: float
    cosine: float


def rows(measured: dict[int, Measured], question: Question) -> list[Row]:
    """A row for the value and each gradient, for every number of processes."""
    alone, tolerance = measured[1], TOLERANCES[question.dtype]
    found = []
    for count in sorted({*question.processes} - {1}):
        there = measured[count]
        found.append(_compared(count, "value", _number(there.value), _number(alone.value), tolerance))
        for name, exact in alone.gradients.items():
            gradient = there.gradients.get(name)
            exact = torch.zeros_like(gradient) if exact is None and gradient is not None else exact
            if exact is not None and any(side is not None and side.norm() for side in (exact, gradient)):
                found.append(_compared(count, f"gradient of {name}", gradient, exact, tolerance))
    return found


def _compared(count: int, what: str, found: Tensor | None, exact: Tensor, tolerance: float) -> Row:
    if found is None:
        return Row(count, what, Verdict.missing, 0.0, 0.0)
    found, exact = found.double().flatten(), exact.double().flatten()
    if not exact.norm():
        equal = not found.norm()
        return Row(count, what, Verdict.right if equal else Verdict.direction, float(equal), 0.0)
    if not found.isfinite().all() or not exact.isfinite().all():
        return Row(count, what, Verdict.not_finite, float("nan"), float("nan"))
    factor = (found @ exact / (exact @ exact)).item()
    across = ((found - factor * exact).norm() / exact.norm()).item()
    cosine = (found @ exact / (found.norm() * exact.norm()).clamp(min=1e-300)).item()
    return Row(count, what, _verdict(count, factor, across, tolerance), factor, cosine)


def _number(value: float) -> Tensor:
    return torch.tensor([value], dtype=torch.float64)


def _verdict(count: int, factor: float, across: float, tolerance: float) -> Verdict:
    if across > tolerance:
        return Verdict.direction
    known = {1.0: Verdict.right, float(count): Verdict.times_world, 1 / count: Verdict.over_world, 0.0: Verdict.missing}
    return next((v for k, v in known.items() if abs(factor - k) <= tolerance * max(1.0, k)), Verdict.scaled)
