"""One step in micro-batches, with the negatives of the whole batch: GradCache (Gao et al. 2021, arXiv 2101.06983).

    1. features f_i of every micro-batch i, without graph when there are several;
    2. the objective on all features as leaves, and its backward: gradients g_i = dL/df_i, and those of the heads;
    3. per micro-batch: features with graph, and the backward of <f_i, g_i>, whose gradient is that of L.

The activations in memory are those of one micro-batch; the price is a second forward. Exact because an encoder looks
at samples one by one; what it draws (dropout) must be the same both times.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from mmpretrain.config.engine import EngineConfig, Precision
from mmpretrain.data.batch import Batch
from mmpretrain.distributed.batch_norm import training_batch_norms
from mmpretrain.losses.similarity import at_least_float32
from mmpretrain.methods.base import Features, Losses

Encode = Callable[[int, Batch], Features]  # number of the micro-batch and its samples; draws the same at every call
Objective = Callable[[Features], Losses]
Backward = Callable[[Tensor, bool], None]  # a scalar to go back from, and whether it is the step's last


class MicroBatches:
    """A rank's local batch, cut into parts that are encoded one at a time."""

    def __init__(self, batch: Batch, count: int, encode: Encode) -> None:
        """count: how many micro-batches; 1 is the ordinary step. Raises ValueError when it does not divide b."""
        self._batch = batch
        self._parts = batch.split(count)
        self._encode = encode
        self._features: Features | None = None  # of the whole batch
        self._with_graph: Features | None = None
        self._gradients: list[tuple[Tensor, ...]] = []
        self._known: list[Tensor] = []  # features, total loss and the features' gradients

    def objective(self, objective: Objective) -> Losses:
        """The losses on the whole batch, and their gradients: into the heads' ``.grad``, and for :meth:`backward`.

        Features reach ``objective`` cut off from the model, and in float32 at least.
        """
        features = self.features()
        leaves = [tensor.requires_grad_() for tensor in features.tensors]
        for leaf in leaves:
            leaf.grad = None  # of an attempt before
        losses = objective(features)
        total = losses.total
        total.backward()
        # What no loss looked at gets zeros, so that every rank goes back through the same modules.
        gradients = [torch.zeros_like(leaf) if leaf.grad is None else leaf.grad for leaf in leaves]
        self._gradients = list(zip(*(g.chunk(len(self._parts)) for g in gradients), strict=True))
        self._known = [*(leaf.detach() for leaf in leaves), total.detach(), *gradients]
        return losses

    def features(self) -> Features:
        """Of the whole batch, cut off from the model, in float32 at least; encoded at the first call."""
        if self._features is None:
            self._features = self._whole(self._first_pass())
        return self._features

    def used_features(self) -> Features:
        """As :meth:`objective` saw them, and without gradients."""
        features = self.features()
        return features.with_tensors([tensor.detach() for tensor in features.tensors], self._batch)

    def encode_again(self) -> Features:
        """The same by the model as it is now."""
        with torch.no_grad():
            return self._whole([self._encode(number, part) for number, part in enumerate(self._parts)])

    @property
    def finite(self) -> bool:
        """Whether this rank's features, total loss and gradients by the features are finite, after :meth:`objective`.

        Waits for the device.
        """
        return bool(torch.stack([tensor.isfinite().all() for tensor in self._known]).all())

    @property
    def features_finite(self) -> bool:
        """Whether this rank's features are finite. Waits for the device."""
        return bool(torch.stack([tensor.isfinite().all() for tensor in self.features().tensors]).all())

    def backward(self, backward: Backward) -> None:
        """Go back from every micro-batch's <f_i, g_i>, after :meth:`objective`; at every call with the same result.

        Raises RuntimeError when no feature depends on anything trainable.
        """
        for number, (part, gradients) in enumerate(zip(self._parts, self._gradients, strict=True)):
            features = self._with_graph or self._encode(number, part)
            self._with_graph = None  # its graph is gone after one backward
            backward(_product(features, gradients), number == len(self._parts) - 1)

    def _whole(self, parts: list[Features]) -> Features:
        columns = zip(*(part.tensors for part in parts), strict=True)
        tensors = [at_least_float32(torch.cat(column).detach()) for column in columns]
        return parts[0].with_tensors(tensors, self._batch)

    def _first_pass(self) -> list[Features]:
        if len(self._parts) == 1:
            self._with_graph = self._encode(0, self._parts[0])
            return [self._with_graph]
        with torch.no_grad():
            return [self._encode(number, part) for number, part in enumerate(self._parts)]


def _product(features: Features, gradients: tuple[Tensor, ...]) -> Tensor:
    """<f, g> over everything trainable, of any float type; scalar."""
    pairs = zip(features.tensors, gradients, strict=True)
    products = [(at_least_float32(f) * g).sum() for f, g in pairs if f.requires_grad]
    if not products:
        raise RuntimeError(
            "no feature of this step depends on a trainable parameter of the model, so that DeepSpeed has nothing to"
            " go back through: Method.encode must run what is trained, or fewer encoders must be frozen"
        )
    return torch.stack(products).sum()


def refuse_batch_norms(model: nn.Module, settings: EngineConfig) -> None:
    """Raises ValueError for layers that train on the batch as a whole, when a step cuts it or may encode it twice."""
    reasons, fixes = [], []
    if settings.micro_batches > 1:
        reasons.append(f"engine.micro_batches={settings.micro_batches}, which would change the batch that it sees")
        fixes.append("engine.micro_batches=1")
    if settings.precision is Precision.float16:
        reasons.append(
            "engine.precision=float16, whose overflows take a step again and would move its running statistics twice"
        )
        fixes.append("engine.precision=bfloat16")
    if reasons and (names := training_batch_norms(model)):
        raise ValueError(
            f"batch norm in {', '.join(names)} cannot train with {'; nor with '.join(reasons)}:"
            f" set {' and '.join(fixes)}, freeze the encoder, or choose one without batch norm"
        )
