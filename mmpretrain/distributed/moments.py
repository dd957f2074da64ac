"""Mean and covariance of the rows of all ranks, for objectives that are functions of correlations.

With weights w (1 for every row unless given) and sums over the rows of all ranks:

    n = sum w,    m = sum(w z) / n,    S = sum(w (z - m)(z - m)^T) / (n - ddof)

Samples never travel: two rounds of 1 + D and D (D + 1) / 2 numbers do, so a large mean costs no precision. Every rank
computes the same loss from the same moments; the backward of a sum over ranks is the sum over ranks, and the average
of the parameters' gradients turns these W equal losses into one: the gradient of one process on the whole batch.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mmpretrain.distributed.world import World


@dataclass(frozen=True)
class Moments:
    """float64, the same on all ranks. count: sum of the weights, a scalar. mean: [D]. covariance: [D, D]."""

    count: Tensor
    mean: Tensor
    covariance: Tensor


def moments(rows: Tensor, *, world: World, weights: Tensor | None = None, ddof: int = 1) -> Moments:
    """Moments of the rows of all ranks; a collective, differentiable in ``rows``.

    rows: [n, D], any float type, n of its own on every rank, 0 included; on every rank or on none do they require
    gradients. weights: [n], how often each row counts: bool (rows of a missing modality are False, and may hold
    anything) or numbers of 0 and more; no gradient. ddof: subtracted from n for the covariance.
    Raises ValueError for other shapes, and on all ranks when the weights of the whole batch do not exceed ``ddof``.
    """
    if rows.dim() != 2 or (weights is not None and weights.shape != rows.shape[:1]):
        shape = None if weights is None else list(weights.shape)
        raise ValueError(f"moments need rows [n, D] and weights [n], got {list(rows.shape)} and {shape}")
    weight = _weights(rows, weights)
    # A product with 0 would keep a NaN.
    values = rows.double().masked_fill(weight == 0, 0.0)
    sums = world.all_reduce_sum(torch.cat([weight.sum().reshape(1), (weight * values).sum(0)]))
    count = sums[0].detach()
    if count <= ddof:
        raise ValueError(f"a covariance needs rows of more than weight {ddof} in the whole batch, got {count.item():g}")
    mean = sums[1:] / count
    # Over all ranks the deviations sum to 0, hence so does the mean's share in the covariance's gradient.
    deviations = values - mean.detach()
    return Moments(count, mean, _summed_products(deviations, weight, world) / (count - ddof))


class RunningMoments(nn.Module):
    """Exponential moving average of batches' moments, for batches too small on their own.

    The batch of t steps ago has a share proportional to ``momentum`` ** t, and the shares sum to 1, from the first
    step on. Gradients flow through the newest batch only. State (buffers, hence in state dicts): ``mean`` [D],
    ``covariance`` [D, D], ``steps``.
    """

    mean: Tensor
    covariance: Tensor
    steps: Tensor

    def __init__(self, width: int, momentum: float = 0.9) -> None:
        """width: D. momentum: 0 (no memory) to below 1. Raises ValueError for another one."""
        super().__init__()
        if not 0 <= momentum < 1:
            raise ValueError(f"momentum is {momentum}: it must be at least 0 and below 1")
        self.momentum = momentum
        self.register_buffer("mean", torch.zeros(width, dtype=torch.float64))
        self.register_buffer("covariance", torch.zeros(width, width, dtype=torch.float64))
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def forward(self, batch: Moments) -> Moments:
        """The average up to and including ``batch``, with its count; kept in training mode only."""
        share = (1 - self.momentum) / (1 - self.momentum ** (self.steps + 1).double())
        mean = self.mean + share * (batch.mean - self.mean)
        covariance = self.covariance + share * (batch.covariance - self.covariance)
        if self.training:
            self.mean.copy_(mean.detach())
            self.covariance.copy_(covariance.detach())
            self.steps.add_(1)
        return Moments(batch.count, mean, covariance)


def _weights(rows: Tensor, weights: Tensor | None) -> Tensor:
    """[n, 1] float64."""
    given = torch.ones(len(rows), device=rows.device) if weights is None else weights.detach()
    return given.to(torch.float64).unsqueeze(1)


def _summed_products(deviations: Tensor, weight: Tensor, world: World) -> Tensor:
    """The sum over all ranks of w d d^T, [D, D]: its upper triangle travels."""
    width = deviations.shape[1]
    row, column = torch.triu_indices(width, width, device=deviations.device)
    products = deviations.T @ (weight * deviations)
    upper = world.all_reduce_sum(products[row, column])
    half = torch.zeros_like(products).index_put((row, column), upper)
    return half + half.triu(1).T
