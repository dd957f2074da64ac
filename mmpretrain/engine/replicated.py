"""Modules that every rank holds whole, outside ZeRO: gradients averaged over the ranks, an optimizer of their own."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from mmpretrain.config.engine import OptimConfig
from mmpretrain.distributed.batch_norm import synchronize
from mmpretrain.distributed.replicas import average_gradients, broadcast_module
from mmpretrain.distributed.world import World
from mmpretrain.engine.optimizer import build_optimizer, parameter_groups


class Replicated:
    """Heads, or critics, and their optimizer (None if nothing in them is trainable)."""

    def __init__(self, modules: nn.ModuleDict, config: OptimConfig, world: World) -> None:
        """Move ``modules`` to the world's device and give every rank the weights of rank 0. A collective."""
        self.modules, self.config, self.world = modules.to(world.device), config, world
        broadcast_module(modules, world)
        synchronize(modules, world)
        groups = parameter_groups(modules, config, {})
        self.optimizer = build_optimizer(groups, config) if groups else None

    def set_lr(self, lr: float) -> None:
        """The learning rate of the next step."""
        for group in self.optimizer.param_groups if self.optimizer else ():
            group["lr"] = lr

    def update(self, other_norm: float = 0.0, after: Callable[[], None] | None = None) -> float:
        """Average the gradients, clip them, and step if all are finite; a collective. Then no gradients are left.

        other_norm: of gradients that belong to the same step, in whose not being finite the step is not taken either.
        after: called when it was taken. Returns the norm of all gradients, before clipping.
        """
        parameters = list(self.modules.parameters())
        average_gradients(parameters, self.world)
        norm = math.hypot(other_norm, float(nn.utils.clip_grad_norm_(parameters, self.config.clip or math.inf)))
        if self.optimizer:
            if math.isfinite(norm):
                self.optimizer.step()
                if after:
                    after()
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
