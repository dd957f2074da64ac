"""The similarity that a method trains with, put into its release: scale and bias, which it has outside of its model."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from mmpretrain.methods.base import Shipped
from mmpretrain.models.similarity_mmpretrain import SIGMOID, SOFTMAX


def with_softmax(shipped: Shipped, logit_scale: Tensor | float) -> Shipped:
    """CLIP's form. logit_scale: log of 1 / temperature, a number or of one element."""
    return _with(shipped, SOFTMAX, {"logit_scale": logit_scale})


def with_sigmoid(shipped: Shipped, logit_scale: Tensor, logit_bias: Tensor) -> Shipped:
    """SigLIP's form; both of one element."""
    return _with(shipped, SIGMOID, {"logit_scale": logit_scale, "logit_bias": logit_bias})


def logit_scale_of(temperature: float) -> float:
    """Of a method whose temperature is fixed."""
    return -math.log(temperature)


def _with(shipped: Shipped, form: str, numbers: Mapping[str, Tensor | float]) -> Shipped:
    """``shipped`` with a model that has these parameters (of the meta device) beside its own.

    A copy that shares all else: under ZeRO-3 a new one would be partitioned, for which rank 0, alone here, would wait.
    """
    model = copy.copy(shipped.model)
    model._parameters = dict(model._parameters)
    config: Any = copy.deepcopy(model.config)
    config.similarity = {"form": form}
    model.config = config
    for name in numbers:
        setattr(model, name, nn.Parameter(torch.empty(1, device="meta")))
    found = {
        name: torch.as_tensor(number).detach().float().cpu().reshape(1).clone() for name, number in numbers.items()
    }
    return replace(shipped, model=model, state={**shipped.state, **found})
