"""Backward passes that have no derivative of their own, and say so."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch

Backward = Callable[..., Any]


def first_order(backward: Backward) -> Backward:
    """Let a ``backward`` of an autograd function raise RuntimeError when its own derivative is asked for.

    torch's ``once_differentiable`` does so only if the incoming gradient needs a gradient itself; at ``loss.backward(
    create_graph=True)`` it does not, and what is missing of the second derivative would be missing silently.
    """

    @functools.wraps(backward)
    def checked(ctx: Any, *gradients: Any) -> Any:
        if torch.is_grad_enabled():
            raise RuntimeError(
                "second derivatives of this loss are not implemented: call backward() or torch.autograd.grad() without"
                " create_graph=True, and leave gradient penalties to other losses"
            )
        return backward(ctx, *gradients)

    return checked
