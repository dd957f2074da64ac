"""Modules that every rank holds whole, outside ZeRO: gradients averaged over the ranks, an optimizer of their own."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mmpretrain.config.engine import OptimConfig
from mmpretrain.distributed.batch_norm import synchronize
from mmpretrain.distributed.replicas import Averaged, averaged_gradients, broadcast_module
from mmpretrain.distributed.world import World
from mmpretrain.engine.optimizer import build_optimizer, parameter_groups


class Replicated:
    """Heads, or critics, and their optimizer (None if nothing in them is trainable).

    faulty: parameters whose gradients were not finite in the last step.
    """

    def __init__(self, modules: nn.ModuleDict, config: OptimConfig, world: World) -> None:
        """Move ``modules`` to the world's device and give every rank the weights of rank 0. A collective."""
        self.modules, self.config, self.world = modules.to(world.device), config, world
        broadcast_module(modules, world)
        synchronize(modules, world)
        self._averaged: Averaged | None = None
        self._norm: Tensor | None = None
        self.faulty: list[str] = []
        groups = parameter_groups(modules, config, {})
        self.optimizer = build_optimizer(groups, config) if groups else None

    def set_lr(self, lr: float) -> None:
        """The learning rate of the next step, of what has no scale of its own (``optim.lr_scales``)."""
        for group in self.optimizer.param_groups if self.optimizer else ():
            group["lr"] = lr * group["lr_scale"]

    def average(self) -> Averaged:
        """Average the gradients over the ranks, if that has not been done in this step; a collective."""
        if self._averaged is None:
            self._averaged = averaged_gradients(list(self.modules.parameters()), self.world)
        return self._averaged

    def unread(self) -> Tensor:
        """float64 [1 + n], which the host has not read yet: the norm of the averaged gradients, and how many ranks had
        each. A collective."""
        ranks = self.average().ranks
        gradients = [p.grad for p in self.modules.parameters() if p.grad is not None]
        # Of none, torch makes a number on the host.
        self._norm = nn.utils.get_total_norm(gradients) if gradients else torch.zeros((), device=self.world.device)
        return torch.cat([self._norm.to(ranks.device, torch.float64).reshape(1), ranks.double()])

    def bad_gradients(self) -> list[str]:
        """Names of the parameters whose gradients are not finite; the same on all ranks once they are averaged."""
        named = {name: p.grad for name, p in self.modules.named_parameters() if p.grad is not None}
        if not named:
            return []
        good = torch.stack([gradient.isfinite().all() for gradient in named.values()]).tolist()
        return [name for name, finite in zip(named, good, strict=True) if not finite]

    def drop_gradients(self) -> None:
        """Have none left, of a step that is not taken."""
        self._averaged, self._norm, self.faulty = None, None, []
        self.modules.zero_grad(set_to_none=True)

    def update(
        self,
        other_norm: float = 0.0,
        after: Callable[[], None] | None = None,
        read: Sequence[float] | None = None,
    ) -> float:
        """Average the gradients, clip them, and step if all are finite; a collective. Then no gradients are left.

        other_norm: of gradients that belong to the same step, in whose not being finite the step is not taken either.
        after: called when it was taken. read: what :meth:`unread` gave, if the host has read it with something else;
        None: it is read here. Returns the norm of all gradients, before clipping.
        """
        own, *ranks = self.unread().tolist() if read is None else read
        for parameter, had in zip(self.average().parameters, ranks, strict=True):
            if not had:
                parameter.grad = None
        total, self._averaged = self._norm, None
        assert total is not None
        norm = math.hypot(other_norm, own)
        self.faulty = [] if math.isfinite(own) else self.bad_gradients()
        if math.isfinite(own):
            parameters = [p for p in self.modules.parameters() if p.grad is not None]
            nn.utils.clip_grads_with_norm_(parameters, self.config.clip or math.inf, total)
        if self.optimizer:
            if math.isfinite(norm):
                self.optimizer.step()
                if after:
                    after()
            self.optimizer.zero_grad(set_to_none=True)
        return norm

    def update_unread(self) -> Tensor:
        """As :meth:`update`, but for a host that does not wait: the step is taken whatever the norm, a scalar of the
        device that is returned, and whoever reads it later sees what went wrong. A collective.

        Only :meth:`update` leaves out parameters without a gradient; with such ones the host waits after all.
        """
        parameters = [parameter for parameter in self.modules.parameters() if parameter.requires_grad]
        if self.optimizer is None or any(parameter.grad is None for parameter in parameters):
            return torch.full((), self.update(), device=self.world.device)
        norm = self.unread()[0]
        assert self._norm is not None
        nn.utils.clip_grads_with_norm_(parameters, self.config.clip or math.inf, self._norm)
        self.optimizer.step()
        self._averaged = None
        self.optimizer.zero_grad(set_to_none=True)
        return norm

    def state_dict(self) -> dict[str, Any]:
        """Weights, buffers and the optimizer's state."""
        return {"modules": self.modules.state_dict(), "optimizer": self.optimizer and self.optimizer.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a checkpoint."""
        self.modules.load_state_dict(state["modules"])
        if self.optimizer:
            self.optimizer.load_state_dict(state["optimizer"])
