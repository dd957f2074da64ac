"""Steps in micro-batches on plain modules, without DeepSpeed: float64, gradients averaged over the ranks."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from mmpretrain.config.root import Config
from mmpretrain.data.batch import Batch
from mmpretrain.distributed.batch_norm import synchronize
from mmpretrain.distributed.replicas import average_gradients
from mmpretrain.distributed.world import World
from mmpretrain.engine.accumulate import MicroBatches
from mmpretrain.methods.base import Features, Method
from tests.methods.toys import make_batch, make_method, make_step

Change = Callable[[Method], None]
Grads = dict[str, Tensor]


def gradients(
    config: Config, epoch: float, count: int, change: Change | None = None, times: int = 1
) -> tuple[float, Grads]:
    """Loss and averaged gradients of this rank's step in ``count`` micro-batches.

    change: what is done to the method first. times: how often the model's backward is taken; only the last one counts.
    """
    world, method, parts = start(config, epoch, count, change)
    losses = parts.objective(lambda features: method.objective(features, make_step(epoch), world))
    lasts: list[bool] = []

    def backward(product: Tensor, last: bool) -> None:
        lasts.append(last)
        product.backward()

    for _ in range(times):
        method.model.zero_grad()
        parts.backward(backward)
    assert lasts == ([False] * (count - 1) + [True]) * times
    return losses.total.item(), averaged(method, world)


def whole_graph(config: Config, epoch: float, count: int, change: Change | None = None) -> tuple[float, Grads]:
    """The same by one graph over all micro-batches, with the same draws."""
    world, method, parts = start(config, epoch, count, change)
    features = [parts._encode(number, part) for number, part in enumerate(parts._parts)]
    columns = [torch.cat(column) for column in zip(*(part.tensors for part in features), strict=True)]
    losses = method.objective(features[0].with_tensors(columns, parts._batch), make_step(epoch), world)
    losses.total.backward()
    return losses.total.item(), averaged(method, world)


def start(config: Config, epoch: float, count: int, change: Change | None = None) -> tuple[World, Method, MicroBatches]:
    """This rank's method and micro-batches; what a micro-batch draws depends on its number and the rank."""
    world, method = World.current(), make_method(config)
    if change:
        change(method)
    synchronize(method.heads, world)
    batch = method.prepare(make_batch(config, world.rank, world.size), make_step(epoch))

    def encode(number: int, part: Batch) -> Features:
        torch.manual_seed(100 * world.rank + number)
        return method.encode(method.model, part)

    return world, method, MicroBatches(batch, count, encode)


def averaged(method: Method, world: World) -> Grads:
    """Gradients by parameter, averaged over the ranks; parameters without one are left out."""
    modules = {"model": method.model, "heads": method.heads}
    named = {f"{m}.{name}": p for m, module in modules.items() for name, p in module.named_parameters()}
    average_gradients(named.values(), world)
    return {name: p.grad for name, p in named.items() if p.grad is not None}


def add_dropout(method: Method) -> None:
    """Drop half of every encoder's output."""
    for encoder in method.model.encoders.values():
        encoder.register_forward_hook(lambda module, args, output: F.dropout(output, 0.5))


def peak_bytes(config: Config, epoch: float, count: int) -> int:
    """Bytes that the model's graphs hold at most, apart from parameters, in a step of one process."""
    world, method, parts = start(config, epoch, count)
    meter = Meter({p.untyped_storage().data_ptr() for p in method.model.parameters()})
    encode = parts._encode

    def metered(number: int, part: Batch) -> Features:
        with torch.autograd.graph.saved_tensors_hooks(meter.pack, lambda held: held.tensor):
            return encode(number, part)

    parts._encode = metered
    parts.objective(lambda features: method.objective(features, make_step(epoch), world))
    parts.backward(lambda product, last: product.backward())
    assert meter.now == 0
    return meter.peak


def freeze_first(method: Method) -> None:
    """Freeze the first encoder: its embeddings carry no gradient."""
    method.model.encoders[method.modalities[0]].requires_grad_(False)


def freeze_all(method: Method) -> None:
    """Freeze the whole model."""
    method.model.requires_grad_(False)


@dataclass
class Held:
    """What a graph holds for its backward."""

    tensor: Tensor


@dataclass
class Meter:
    """Counts bytes of saved tensors whose storage is not among ``others``, for as long as a graph holds them."""

    others: set[int]
    now: int = 0
    peak: int = 0

    def pack(self, tensor: Tensor) -> Held:
        """To be called for every tensor that is saved."""
        held = Held(tensor)
        if tensor.untyped_storage().data_ptr() not in self.others:
            size = tensor.numel() * tensor.element_size()
            self.now += size
            self.peak = max(self.peak, self.now)
            weakref.finalize(held, self._release, size)
        return held

    def _release(self, size: int) -> None:
        self.now -= size
