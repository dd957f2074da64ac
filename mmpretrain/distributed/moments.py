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
    # Otherwise division by 0 makes NaN of it.
    if not world.ahead and count <= ddof:
        raise ValueError(f"a covariance needs rows of more than weight {ddof} in the whole batch, got {count.item():g}")
    mean = sums[1:] / count
    # Over all ranks the deviations sum to 0, hence so does the mean's share in the covariance's gradient.
    deviations = values - mean.detach()
    return Moments(count, mean, _summed_products(deviations, weight, world) / (count - ddof))


class PooledMoments:
    """Moments of rows that come one batch after the other, such as a whole split; without gradient.

    Each rank adds up its own rows: n, mean and the sum of w (z - mean)(z - mean)^T, batch by batch (Chan et al. 1979).
    """

    def __init__(self) -> None:
        self._count = self._mean = self._products = torch.zeros((), dtype=torch.float64)

    @torch.no_grad()
    def add(self, rows: Tensor, weights: Tensor | None = None) -> None:
        """Rows [n, D] of this rank, weights as in :func:`moments`."""
        weight = _weights(rows, weights)
        values = rows.double().masked_fill(weight == 0, 0.0)
        count = weight.sum()
        mean = (weight * values).sum(0) / count.clamp_min(torch.finfo(torch.float64).tiny)
        deviations = values - mean
        self._merge(count, mean, deviations.T @ (weight * deviations))

    def _merge(self, count: Tensor, mean: Tensor, products: Tensor) -> None:
        before = self._count.to(count.device)
        total, shift = before + count, mean - self._mean.to(mean.device)
        share = torch.where(total > 0, count / total.clamp_min(torch.finfo(torch.float64).tiny), 0.0)
        self._products = self._products.to(mean.device) + products + before * share * torch.outer(shift, shift)
        self._mean = self._mean.to(mean.device) + share * shift
        self._count = total

    @torch.no_grad()
    def moments(self, world: World, ddof: int = 1) -> Moments:
        """Of the rows of all ranks; a collective. Raises ValueError where none were added, and as :func:`moments`."""
        if not self._mean.dim():
            raise ValueError("moments of no rows: every rank needs at least one batch, of 0 rows if need be")
        sums = world.all_reduce_sum(torch.cat([self._count.reshape(1), self._count * self._mean]))
        count, mean = sums[0], sums[1:] / sums[0]
        if count <= ddof:
            raise ValueError(f"a covariance needs rows of more than weight {ddof} on all ranks, got {count.item():g}")
        shift = self._mean - mean
        products = self._products + self._count * torch.outer(shift, shift)
        return Moments(count, mean, _symmetric_sum(products, world) / (count - ddof))


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
    """The sum over all ranks of w d d^T, [D, D]."""
    return _symmetric_sum(deviations.T @ (weight * deviations), world)


def _symmetric_sum(products: Tensor, world: World) -> Tensor:
    """The sum over all ranks of a symmetric [D, D]: its upper triangle travels."""
    width = len(products)
    row, column = torch.triu_indices(width, width, device=products.device)
    upper = world.all_reduce_sum(products[row, column])
    half = torch.zeros_like(products).index_put((row, column), upper)
    return half + half.triu(1).T
