"""A learnable temperature."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class Temperature(nn.Module):
    """``scale = exp(logit_scale) = 1 / temperature``, with logit_scale a parameter of shape (1,).

    temperature: the initial value. max_scale: upper limit of the scale, which :meth:`clamp_` restores after
    every optimizer step. Clamping by value keeps the gradient at the limit, where clamping in the forward
    pass would stop the temperature for good.
    """

    def __init__(self, temperature: float, max_scale: float) -> None:
        super().__init__()
        self.max_scale = max_scale
        # Of shape (1,): tools that flatten or partition parameters cannot handle one without dimension.
        self.logit_scale = nn.Parameter(torch.tensor([-math.log(temperature)]))

    def forward(self) -> Tensor:
        """The scale, [1]."""
        return self.logit_scale.exp()

    @torch.no_grad()
    def clamp_(self) -> None:
        """Bring the scale back to at most ``max_scale``."""
        self.logit_scale.clamp_(max=math.log(self.max_scale))
