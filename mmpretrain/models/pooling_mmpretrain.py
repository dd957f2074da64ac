"""What an encoder computes before it is pooled, and the pooling of it into one vector."""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

import torch
from torch import Tensor


class StateForm(Enum):
    """Shape of an encoder's states: vector [b, w], tokens [b, n, w], or feature map [b, w, height, width]."""

    vector = "vector"
    tokens = "tokens"
    map = "map"


class States(NamedTuple):
    """values: as :class:`StateForm` says. mask: [b, n], 1 for tokens that count; None: all do."""

    values: Tensor
    mask: Tensor | None = None


def pool_states(states: Tensor, mask: Tensor | None, pool: str) -> Tensor:
    """Token states [b, n, w] or a feature map [b, w, h, v] -> [b, w] (``flatten``: all of them, [b, n * w]).

    mask: [b, n], 1 for tokens that count; None: all do. pool: the first token (cls), the last one that counts (last),
    the mean of those that count (mean).
    """
    if pool == "flatten":
        return states.flatten(1)
    if states.ndim == 4:
        states = states.flatten(2).transpose(1, 2)
    if pool == "cls":
        return states[:, 0]
    if pool == "last":
        return _last(states, mask)
    if mask is None:
        return states.mean(dim=1)
    weight = mask.unsqueeze(-1).to(states.dtype)
    return (states * weight).sum(dim=1) / weight.sum(dim=1).clamp(min=1)


def _last(states: Tensor, mask: Tensor | None) -> Tensor:
    if mask is None:
        return states[:, -1]
    places = torch.arange(states.shape[1], device=states.device)
    last = torch.where(mask.bool(), places, 0).argmax(dim=1)
    return states.gather(1, last[:, None, None].expand(-1, 1, states.shape[2])).squeeze(1)
