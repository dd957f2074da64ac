"""What a step changes before it is known to be finite, kept so that a step can be left out as if it had not been."""

from __future__ import annotations

import copy
from dataclasses import asdict

import torch

from mmpretrain.engine.loss_scale import LossScale
from mmpretrain.engine.replicated import Replicated
from mmpretrain.methods.base import Method


class Spared:
    """Running statistics of model and heads, float16's scale, and critics, whose steps are several.

    Weights, optimizers and averages need no copy: they are only touched once all gradients are finite.
    """

    def __init__(self, method: Method, critics: Replicated, scale: LossScale | None) -> None:
        self._buffers = [buffer for part in (method.model, method.heads, method.critics) for buffer in part.buffers()]
        self._copies = [buffer.clone() for buffer in self._buffers]
        self._critics, self._scale = critics, scale
        self._scale_before = None if scale is None else asdict(scale)
        self._critics_before = copy.deepcopy(critics.state_dict()) if critics.optimizer is not None else None

    def put_back_critics(self) -> None:
        """Make critics what they were."""
        if self._critics_before is not None:
            self._critics.load_state_dict(self._critics_before)

    @torch.no_grad()
    def put_back(self) -> None:
        """Make everything what it was."""
        for buffer, kept in zip(self._buffers, self._copies, strict=True):
            buffer.copy_(kept)
        self.put_back_critics()
        if self._scale is not None and self._scale_before is not None:
            self._scale.restore(**self._scale_before)
