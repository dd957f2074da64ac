"""Estimates over all pairs of a learned critic, and their gradients, in one sweep over strips of whole rows.

A strip of a few anchors sees the candidates of all ranks at once. So its log-sum-exp, and with it the derivative by
its scores, is known before its activations are given up: nothing is kept of the N x N pairs and nothing is computed
twice. What is kept for the backward pass are the gradients themselves: of rows [b, h], of columns [N, h] and of the
critic's inner parameters; the backward pass only multiplies them by the gradient that flows in.

Memory: a few times STRIP_BYTES, or the activations of one anchor with N candidates where these are larger.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from typing import Any

import torch
from torch import Tensor

from mmpretrain.config.objective import MIB, ObjectiveConfig, Products
from mmpretrain.distributed.first_order import first_order
from mmpretrain.losses.critic_networks import Critic
from mmpretrain.losses.visibility import Visible

STRIP_BYTES = 16 * MIB


class Estimator(StrEnum):
    """What is estimated from a critic's scores: -I_NCE, or I_CLUB."""

    nce = "nce"
    club = "club"


class Strips:
    """One sweep over the pairs of a critic. temperature: divides the scores."""

    def __init__(
        self, critic: Critic, estimator: Estimator, temperature: float, settings: ObjectiveConfig, visible: Visible
    ) -> None:
        self.critic = critic
        self.temperature = temperature
        self.settings = settings
        self.visible = visible
        self.estimate = {Estimator.nce: _nce, Estimator.club: _club}[estimator]

    def run(self, rows: Tensor, columns: Tensor, wanted: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """The estimate, scalar, and its gradient by each of ``wanted``: any of rows, columns and parameters."""
        gradients = [torch.zeros_like(tensor) for tensor in wanted]
        # Small results made between the strips would pin the memory that these give back.
        values = rows.new_empty(len(rows))
        for strip in self._slices(rows, columns):
            part = rows[strip].detach().requires_grad_(any(tensor is rows for tensor in wanted))
            leaves = [part if tensor is rows else tensor for tensor in wanted]
            totals = [t[strip] if of is rows else t for of, t in zip(wanted, gradients, strict=True)]
            with torch.set_grad_enabled(bool(wanted)):
                scores = self._scores(part, columns)
            values[strip], derivative = self.estimate(scores.detach(), self.visible, strip)
            if wanted:
                found = torch.autograd.grad(scores, leaves, derivative)
                for total, gradient in zip(totals, found, strict=True):
                    total += gradient
        return values.sum(), gradients

    def _scores(self, rows: Tensor, columns: Tensor) -> Tensor:
        rounded = (
            self.settings.products is Products.bfloat16 and rows.dtype is torch.float32 and _has_units(rows.device)
        )
        # Casts that autocast caches would outlive the graph of their strip.
        with torch.autocast(rows.device.type, torch.bfloat16, enabled=rounded, cache_enabled=False):
            return self.critic.scores(rows, columns) / self.temperature

    def _slices(self, rows: Tensor, columns: Tensor) -> Iterator[slice]:
        row_bytes = len(columns) * self.critic.pair_width * columns.element_size()
        size = max(1, min(STRIP_BYTES // row_bytes, self.settings.tile))
        for start in range(0, len(rows), size):
            yield slice(start, min(start + size, len(rows)))


def _has_units(device: torch.device) -> bool:
    """Whether layers run faster in bfloat16 here; on processors their backward passes take many times as long."""
    return device.type == "cuda"


def swept(strips: Strips, rows: Tensor, columns: Tensor) -> Tensor:
    """The estimate from rows [b, h] and columns [N, h], with gradients by them and by the critic's parameters."""
    parameters = strips.critic.inner_parameters()
    return _Swept.apply(strips, torch.is_grad_enabled(), rows, columns, *parameters)


class _Swept(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, strips: Strips, graded: bool, *tensors: Tensor) -> Tensor:
        """Rows, columns and parameters -> the estimate."""
        needed = [wanted and graded for wanted in ctx.needs_input_grad[2:]]
        rows, columns, *parameters = tensors
        # A leaf of the strips' graphs, as the parameters are: nothing before it belongs to them.
        columns = columns.detach().requires_grad_(needed[1])
        wanted = [t for t, need in zip([rows, columns, *parameters], needed, strict=True) if need]
        value, gradients = strips.run(rows, columns, wanted)
        ctx.needed = needed
        ctx.save_for_backward(*gradients)
        return value

    @staticmethod
    @first_order
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """What was found in the forward pass, times what flows in."""
        found = iter(ctx.saved_tensors)
        return None, None, *(next(found) * gradient if need else None for need in ctx.needed)


def _nce(scores: Tensor, visible: Visible, strip: slice) -> tuple[Tensor, Tensor]:
    """[t, N] scores -> terms of -I_NCE, [t], and their derivative by the scores, [t, N]."""
    weights, hidden = visible.weights[strip].to(scores), visible.hidden(strip)
    candidates = scores.new_full((len(scores),), scores.shape[1])
    if hidden is not None:
        scores, candidates = scores.masked_fill(hidden, -torch.inf), (~hidden).sum(dim=1).to(scores)
    log_probabilities = scores.log_softmax(dim=1)
    own = visible.counterparts(log_probabilities, strip)
    derivative = log_probabilities.exp()
    visible.counterparts(derivative, strip).copy_(own.expm1())
    # Rows that are no anchors may see nothing: their logarithms are not numbers.
    values = torch.where(weights > 0, -weights * (own + candidates.log()), 0)
    return values, torch.where(weights[:, None] > 0, derivative * weights[:, None], 0)


def _club(scores: Tensor, visible: Visible, strip: slice) -> tuple[Tensor, Tensor]:
    """[t, N] scores -> terms of I_CLUB, [t], and their derivative by the scores, [t, N]."""
    weights, hidden = visible.weights[strip, None].to(scores), visible.hidden(strip)
    seen = torch.ones_like(scores) if hidden is None else (~hidden).to(scores)
    derivative = seen * (-weights / seen.sum(dim=1, keepdim=True).clamp(min=1))
    visible.counterparts(derivative, strip).add_(weights[:, 0])
    return (derivative * scores).sum(dim=1), derivative
