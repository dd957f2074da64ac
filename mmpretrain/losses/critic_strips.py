"""Estimates over all pairs of a learned critic, and their gradients, in one sweep over strips of whole rows.

A strip of a few anchors sees the candidates of all ranks at once. So its log-sum-exp, and with it the derivative by
its scores, is known before its activations are given up: nothing is kept of the N x N pairs and nothing is computed
twice. What is kept for the backward pass are the gradients themselves: of rows [b, h], of columns [N, h] and of the
critic's inner parameters; the backward pass only multiplies them by the gradient that flows in.

Memory: ``objective.critic_mb`` MiB, or the activations of one anchor with N candidates where these are larger. Strips
are whole rows, never shorter: cut in columns, every pair would have to be scored twice, since a derivative needs its
row's sum. On devices that wait for every launch a strip is as large as may be; processors are fastest with strips that
stay in the cache.
"""

from __future__ import annotations

import math
from enum import StrEnum
from typing import Any

import torch
from torch import Tensor

from mmpretrain.config.methods.factorcl import SCORE_WIDTH
from mmpretrain.config.objective import ObjectiveConfig, Products, critic_bytes
from mmpretrain.distributed.first_order import first_order
from mmpretrain.losses.critic_networks import Critic
from mmpretrain.losses.critic_passes import StripPass, Totals
from mmpretrain.losses.visibility import Visible


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

    def run(self, rows: Tensor, columns: Tensor, totals: Totals) -> Tensor:
        """The estimate, scalar; its gradients are added to ``totals``."""
        # Small results made between the strips would pin the memory that these give back.
        values = rows.new_empty(len(rows))
        size = self._size(rows, columns)
        critic = self._pass(rows, size * len(columns), totals)
        for start in range(0, len(rows), size):
            strip = slice(start, min(start + size, len(rows)))
            scores = critic.scores(rows[strip], columns)
            values[strip], derivative = self.estimate(self._tempered(scores), self.visible, strip)
            if totals.found:
                critic.back(self._tempered(derivative), strip, totals)
        critic.finish(totals)
        return values.sum()

    def _pass(self, rows: Tensor, pairs: int, totals: Totals) -> StripPass:
        rounded = self.settings.products is Products.bfloat16 and rows.dtype is torch.float32
        dtype = torch.bfloat16 if rounded and _has_units(rows.device) else rows.dtype
        return self.critic.strip_pass(pairs, dtype, totals)

    def _tempered(self, values: Tensor) -> Tensor:
        return values if self.temperature == 1 else values / self.temperature

    def _size(self, rows: Tensor, columns: Tensor) -> int:
        """Anchors of a strip."""
        row_bytes = len(columns) * (self.critic.pair_width + SCORE_WIDTH) * columns.element_size()
        return max(1, min(strip_bytes(self.settings, rows.device) // row_bytes, self.settings.tile, len(rows)))


def strip_bytes(settings: ObjectiveConfig, device: torch.device) -> int:
    """What a strip may take on this device."""
    return critic_bytes(settings, gpu=device.type != "cpu")


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
        ctx.needed = [wanted and graded for wanted in ctx.needs_input_grad[2:]]
        of_rows, of_columns, *of_parameters = (
            torch.zeros_like(tensor) if need else None for tensor, need in zip(tensors, ctx.needed, strict=True)
        )
        totals = Totals(of_rows, of_columns, of_parameters)
        value = strips.run(tensors[0], tensors[1], totals)
        ctx.save_for_backward(*totals.found)
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
    own_count: Tensor | float = math.log(scores.shape[1])
    if hidden is not None:
        scores = scores.masked_fill(hidden, -torch.inf)
        own_count = (scores.shape[1] - hidden.sum(dim=1, dtype=scores.dtype)).log_()
    log_probabilities = scores.log_softmax(dim=1)
    own = visible.counterparts(log_probabilities, strip)
    derivative = log_probabilities.exp()
    visible.counterparts(derivative, strip).copy_(own.expm1())
    values, derivative = -weights * (own + own_count), derivative.mul_(weights[:, None])
    if visible.candidates is not None:
        # Rows that are no anchors may see nothing: their logarithms are not numbers.
        counted = weights > 0
        values, derivative = torch.where(counted, values, 0), torch.where(counted[:, None], derivative, 0)
    return values, derivative


def _club(scores: Tensor, visible: Visible, strip: slice) -> tuple[Tensor, Tensor]:
    """[t, N] scores -> terms of I_CLUB, [t], and their derivative by the scores, [t, N]."""
    weights, hidden = visible.weights[strip, None].to(scores), visible.hidden(strip)
    if hidden is None:
        derivative = (weights / -scores.shape[1]).expand_as(scores).clone()
    else:
        seen = (~hidden).to(scores)
        derivative = seen * (-weights / seen.sum(dim=1, keepdim=True).clamp_(min=1))
    visible.counterparts(derivative, strip).add_(weights[:, 0])
    return (derivative * scores).sum(dim=1), derivative
