"""Batch normalization (Ioffe and Szegedy, 2015, arXiv 1502.03167) over the rows of all ranks, on any backend.

For one channel with N values in the whole batch, m their mean and v that of (x - m)^2; with g the gradient for y, and
both sums over the whole batch:

    y  = w (x - m) / sqrt(v + eps) + b
    dx = w / sqrt(v + eps) [ g  -  sum(g) / N  -  (x - m) / (v + eps) sum(g (x - m)) / N ]

Each rank sends its count, mean and centered squares, so that a large mean costs no precision: one collective forward,
one backward. The gradients of w and b are those of the rank's own rows, which the average over ranks makes whole.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmpretrain.distributed.first_order import first_order
from mmpretrain.distributed.world import World

# Anything else that torch or a model derives from batch norm may compute something else.
_KNOWN = (_BatchNorm.forward, nn.SyncBatchNorm.forward)


class SyncBatchNorm(_BatchNorm):
    """torch's batch norm for [b, c] and [b, c, ...], its training statistics those of the rows of all ranks.

    Arguments, parameters and buffers are those of ``torch.nn.BatchNorm1d``, so state dicts interchange. b may differ
    between ranks, and be 0 on some. In evaluation mode, and in a world of one, it is torch's own.
    Raises ValueError when the whole batch has a single value per channel, as torch does.
    """

    def __init__(self, num_features: int, *, world: World, **options: Any) -> None:
        """options: ``eps``, ``momentum``, ``affine``, ``track_running_stats``, ``device`` and ``dtype`` as in torch."""
        super().__init__(num_features, **options)
        self.world = world

    # Collectives are no work for a compiler: an encoder that is compiled is cut here.
    @torch.compiler.disable
    def forward(self, input: Tensor) -> Tensor:
        """[b, c] or [b, c, ...] -> same shape and type, computed in float32 at least."""
        if not self.training or self.world.size == 1:
            return super().forward(input)
        self._check_input_dim(input)
        with torch.autocast(input.device.type, enabled=False):
            batch = _whole_batch(input.detach(), self.world)
            _track(self, batch)
            return _Normalize.apply(input, self.weight, self.bias, batch, self.eps, self.world)

    def _check_input_dim(self, input: Tensor) -> None:
        if input.dim() < 2:
            raise ValueError(f"batch norm needs [b, c] or [b, c, ...], got the shape {list(input.shape)}")


def synchronize(model: nn.Module, world: World) -> None:
    """Turn every batch norm inside ``model`` into a :class:`SyncBatchNorm` of ``world``, in place; alone, do nothing.

    Modules, parameters, buffers, hooks, names and training modes stay as they are, so an optimizer may exist already.
    Raises ValueError for a layer that derives from torch's batch norm and computes something of its own.
    """
    if world.size == 1:
        return
    for name, layer in batch_norms(model):
        if type(layer).forward not in (*_KNOWN, SyncBatchNorm.forward):
            raise ValueError(f"{name} is a {type(layer).__name__}, which has no synchronized form: use torch's own")
        # As torch's lazy modules do: whoever holds the layer, under whatever name, holds the synchronized one.
        layer.__class__ = SyncBatchNorm
        layer.world = world  # type: ignore[assignment]


def training_batch_norms(model: nn.Module) -> list[str]:
    """Names of the batch norms inside ``model``, in training mode, that use statistics of the batch.

    Those of frozen encoders, which stay in evaluation mode, do not, unless they track no statistics of their own.
    """
    return [name for name, layer in batch_norms(model) if layer.training or layer.running_mean is None]


def batch_norms(model: nn.Module) -> list[tuple[str, _BatchNorm]]:
    """Name and layer of every batch norm inside ``model``, synchronized or not."""
    return [(name, layer) for name, layer in model.named_modules() if isinstance(layer, _BatchNorm)]


@contextmanager
def held_statistics(model: nn.Module) -> Iterator[None]:
    """Running statistics of the batch norms inside ``model`` are afterwards what they were before."""
    before = [(buffer, buffer.clone()) for _, layer in batch_norms(model) for buffer in layer.buffers()]
    try:
        yield
    finally:
        for buffer, value in before:
            buffer.copy_(value)


def normalized_where(layer: _BatchNorm, rows: Tensor, counted: Tensor, world: World) -> Tensor:
    """What ``layer``, in training mode, makes of ``rows[counted]`` of all ranks, without asking how many they are.

    rows: [b, c]. counted: bool [b]; other rows become 0, and get no gradient. With less than two rows that count on all
    ranks together everything is NaN, the running statistics included. A collective.
    """
    hidden = ~counted[:, None]
    rows = rows.masked_fill(hidden, 0)
    with torch.autocast(rows.device.type, enabled=False):
        batch = _whole_batch(rows.detach(), world, counted)
        _track(layer, batch)
        return _Normalize.apply(rows, layer.weight, layer.bias, batch, layer.eps, world).masked_fill(hidden, 0)


class _Batch(NamedTuple):
    """Statistics per channel, the same on all ranks. values: how many they are of. variance: biased."""

    values: Tensor
    mean: Tensor
    variance: Tensor


@torch.no_grad()
def _track(layer: _BatchNorm, batch: _Batch) -> None:
    """Move the running statistics towards those of the whole batch; the variance that is kept is unbiased."""
    if not layer.track_running_stats:
        return
    assert layer.running_mean is not None and layer.running_var is not None and layer.num_batches_tracked is not None
    layer.num_batches_tracked.add_(1)
    share = 1 / layer.num_batches_tracked.double() if layer.momentum is None else layer.momentum
    unbiased = batch.variance * batch.values / (batch.values - 1)
    for running, new in ((layer.running_mean, batch.mean), (layer.running_var, unbiased)):
        # Torch's own layer keeps them for its backward pass, which does not use them after training statistics.
        running.data.copy_(running + share * (new - running))


@torch.no_grad()
def _whole_batch(rows: Tensor, world: World, counted: Tensor | None = None) -> _Batch:
    """The batch's statistics from those of each rank, float64 (they are few, and counts may exceed 2^24).

    counted: bool [b], the rows that count, the others being 0; None: all.
    """
    mean, squares, values = _own_statistics(rows, counted)
    own = torch.stack([values.to(mean).expand_as(mean), mean, squares]).double()
    counts, means, centered = world.all_gather_rows(own[None]).unbind(1)
    count = counts.sum(0)
    if counted is not None:
        count = count.masked_fill(count < 2, torch.nan)
    # Looking at the count makes the host wait for the device; a rank with two values of its own knows enough.
    elif rows.numel() // rows.shape[1] < 2 and count[0] < 2:
        raise ValueError(
            f"batch norm needs more than 1 value per channel in the whole batch (this rank's shape is"
            f" {list(rows.shape)}): enlarge data.global_batch"
        )
    overall = (counts * means).sum(0) / count
    variance = (centered + counts * (means - overall).square()).sum(0) / count
    return _Batch(count, overall, variance)


def _own_statistics(rows: Tensor, counted: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Mean and centered squares of this rank's rows, [c] each, and how many values they are of, a scalar."""
    dims, exact = _all_but_channels(rows), rows.to(_at_least_float32(rows))
    if counted is None:
        values = torch.full((), rows.numel() // rows.shape[1], dtype=exact.dtype, device=rows.device)
    else:
        values = counted.sum(dtype=exact.dtype)
    mean = exact.sum(dims) / values.clamp(min=1)
    centered = exact - _per_channel(mean, rows)
    if counted is not None:
        centered = centered.masked_fill(~counted[:, None], 0)
    return mean, centered.square().sum(dims), values


class _Normalize(torch.autograd.Function):
    """y and its gradients as in the module's docstring."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, batch: _Batch, eps: float, world: World
    ) -> Tensor:
        """[b, c, ...] -> same shape and type."""
        dtype = _at_least_float32(x)
        mean, inverse = batch.mean.to(dtype), (batch.variance + eps).rsqrt().to(dtype)
        ctx.world = world
        ctx.save_for_backward(x, weight, mean, inverse, batch.values)
        factor = inverse if weight is None else inverse * weight
        y = (x.to(dtype) - _per_channel(mean, x)) * _per_channel(factor, x)
        return (y if bias is None else y + _per_channel(bias, x)).to(x.dtype)

    @staticmethod
    @first_order
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of x (from all ranks' rows), weight and bias (from this rank's)."""
        x, weight, mean, inverse, count = ctx.saved_tensors
        dims, grad = _all_but_channels(x), grad.to(mean.dtype)
        centered = x.to(mean.dtype) - _per_channel(mean, x)
        sums = torch.stack([grad.sum(dims), (grad * centered).sum(dims)])
        own_bias, own_weight = sums[0], sums[1] * inverse
        dx = None
        if ctx.needs_input_grad[0]:
            mean_grad, mean_product = ctx.world.all_reduce_sum(sums.double()).div(count).to(mean.dtype)
            slope = mean_product * inverse.square()
            inner = grad - _per_channel(mean_grad, x) - centered * _per_channel(slope, x)
            dx = (inner * _per_channel(inverse if weight is None else inverse * weight, x)).to(x.dtype)
        if weight is None:
            return dx, None, None, None, None, None
        return dx, own_weight.to(weight.dtype), own_bias.to(weight.dtype), None, None, None


def _all_but_channels(x: Tensor) -> list[int]:
    return [dim for dim in range(x.dim()) if dim != 1]


def _per_channel(values: Tensor, x: Tensor) -> Tensor:
    """[c] -> [1, c, 1, ...] as ``x`` needs it."""
    return values.view(1, -1, *[1] * (x.dim() - 2))


def _at_least_float32(x: Tensor) -> torch.dtype:
    return torch.promote_types(x.dtype, torch.float32)
