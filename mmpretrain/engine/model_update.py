"""Backward and update of what DeepSpeed wraps, the same at ZeRO 0-3: accumulation, loss scale, norm, clipping."""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from mmpretrain.config.engine import EngineConfig
from mmpretrain.distributed.world import World
from mmpretrain.engine.accumulate import MicroBatches
from mmpretrain.engine.loss_scale import LossScale
from mmpretrain.engine.nonfinite import bad_gradients

CLIP_EPS = 1e-6  # as torch and DeepSpeed add it to a norm that they divide by


class ModelUpdate:
    """Takes steps of a DeepSpeed engine.

    faulty: parameters of whose gradients this rank held something that was not finite in the last step. read: what
    :meth:`step` was given to read along.
    """

    def __init__(
        self, deepspeed: Any, settings: EngineConfig, clip: float | None, scale: LossScale | None, world: World
    ) -> None:
        """clip: ``optim.clip``. scale: the loss scale of float16, else None. world: the ranks that step together."""
        self.deepspeed = deepspeed
        self.settings = settings
        self.clip = clip
        self.scale = scale
        self.world = world
        self._parameters = list(deepspeed.module.parameters())
        self.faulty: set[str] = set()
        self.read: list[float] = []
        self._along: Tensor | None = None
        if settings.zero:
            self._watch_cleanup(deepspeed.optimizer)
        if self.scale:
            _turn_off_scalers(deepspeed)
        if world.size == 1:
            _turn_off_reduction(deepspeed, settings.zero)

    def step(self, parts: MicroBatches, along: Tensor | None = None) -> float:
        """Backward of every micro-batch and one update; the norm of the gradients before clipping.

        along: float64 [n], numbers of the device that are read together with the norm, so that the host waits once.

        The norm is the same on all ranks, and not finite when the gradients are not (float16: at any scale); the
        weights are then as before.
        """
        self._along = along
        norm = self._attempt(parts)
        if self.scale is None:
            return norm
        while not math.isfinite(norm) and self._may_be_the_scale(parts) and self.scale.lower():
            norm = self._attempt(parts)
        if math.isfinite(norm):
            self.scale.taken()
        return norm

    def _watch_cleanup(self, optimizer: Any) -> None:
        """Look at gradients that are not finite before DeepSpeed forgets them."""
        zero_grad = optimizer.zero_grad

        def looked_at(*arguments: Any, **options: Any) -> None:
            if optimizer.overflow:
                self.faulty |= bad_gradients(self.deepspeed.module, optimizer, self.settings.zero)
            zero_grad(*arguments, **options)

        optimizer.zero_grad = looked_at

    def _may_be_the_scale(self, parts: MicroBatches) -> bool:
        """Whether gradients may have overflowed: what they start from, which no scale touches, is finite everywhere."""
        return not self.world.max_flag(not parts.finite)

    def _attempt(self, parts: MicroBatches) -> float:
        self.faulty = set()
        if self.settings.zero == 0:
            parts.backward(self._backward)
            return self._step_whole()
        if self.scale:
            self.deepspeed.optimizer.override_loss_scale(self.scale.value)
        with self._reduction():
            parts.backward(self._backward)
        self.deepspeed.step()  # leaves everything as it is when the norm is not finite
        return self._read(self.deepspeed.get_global_grad_norm())

    def _read(self, norm: Tensor | float | None) -> float:
        """The number, and with it what is to be read along."""
        if not isinstance(norm, Tensor):
            self.read = [] if self._along is None else self._along.tolist()
            return float(norm or 0.0)
        along = [] if self._along is None else [self._along.to(norm.device)]
        found, *self.read = torch.cat([norm.detach().double().reshape(1), *along]).tolist()
        return found

    def _backward(self, product: Tensor, last: bool) -> None:
        # Only at the boundary does ZeRO 0 and 1 reduce, and ZeRO 1-3 know that the sum is complete.
        self.deepspeed.set_gradient_accumulation_boundary(last)
        scaled = product * self.scale.value if self.scale and self.settings.zero == 0 else product
        self.deepspeed.backward(scaled)

    def _step_whole(self) -> float:
        """Stage 0 neither tells its norm nor looks at it, but every rank holds the whole gradients: they are clipped
        here, by the norm that is wanted anyway."""
        gradients = [p.grad for p in self._parameters if p.grad is not None]
        if self.scale:
            torch._foreach_div_(gradients, self.scale.value)
        norm = self._read(nn.utils.get_total_norm(gradients))
        if math.isfinite(norm):
            if self.clip and norm > self.clip:
                torch._foreach_mul_(gradients, self.clip / (norm + CLIP_EPS))
            self.deepspeed.step()
        else:
            self.faulty = bad_gradients(self.deepspeed.module, self.deepspeed.optimizer, 0)
            self.deepspeed.zero_grad()
        return norm

    def _reduction(self) -> AbstractContextManager[None]:
        return self.deepspeed.coalesce_grad_reduction() if self.settings.coalesce_reduction else nullcontext()


def _turn_off_scalers(deepspeed: Any) -> None:
    """DeepSpeed's own scalers under torch_autocast would clip gradients that are still scaled."""
    deepspeed.torch_autocast_z0_gradscaler = None
    deepspeed.optimizer.torch_autocast_gradscaler = None


def _turn_off_reduction(deepspeed: Any, stage: int) -> None:
    """One rank's gradients are their own mean: spare copying them into buckets, through a collective, and back."""
    if stage == 0:
        deepspeed.enable_backward_allreduce = False
    elif stage in (1, 2):
        deepspeed.optimizer.allreduce_no_retain = lambda *arguments, **options: None
