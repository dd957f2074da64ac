"""An encoder as it is tried out before training: what is learned from that must not change it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from mmpretrain.models.encoders_mmpretrain import Encoder

_STD = 0.02  # of what stands in for zeros


@contextmanager
def tried(encoder: Encoder) -> Iterator[None]:
    """Without gradients, dropout, compilation, and kernels that only GPUs have; random numbers outside stay as they
    are."""
    training, backbone = encoder.training, encoder.backbone
    config: Any = getattr(backbone, "config", None)
    kernel = getattr(config, "_attn_implementation", None) or ""
    try:
        encoder.eval()
        if kernel.startswith("flash"):
            backbone.set_attn_implementation("eager")  # type: ignore[operator]
        stance = torch.compiler.set_stance("force_eager")
        with torch.inference_mode(), torch.random.fork_rng(devices=[]), stance:
            yield
    finally:
        if kernel.startswith("flash"):
            backbone.set_attn_implementation(kernel)  # type: ignore[operator]
        encoder.train(training)


@contextmanager
def without_zeros(encoder: Encoder) -> Iterator[None]:
    """With small random numbers where all of a parameter is zero, as biases and gates are before they have learned:
    what they let through is invisible until then."""
    random = torch.Generator().manual_seed(0)
    zeros = [parameter for parameter in encoder.parameters() if not parameter.any()]
    kept = [parameter.detach().clone() for parameter in zeros]
    try:
        with torch.no_grad():
            for parameter in zeros:
                parameter.normal_(std=_STD, generator=random)
        yield
    finally:
        with torch.no_grad():
            for parameter, values in zip(zeros, kept, strict=True):
                parameter.copy_(values)


@contextmanager
def doubled(encoder: Encoder) -> Iterator[None]:
    """In float64, where rounding is not mistaken for a difference; back in float32 not a bit is another."""
    tensors = [*encoder.parameters(), *encoder.buffers()]
    changed = [tensor for tensor in tensors if tensor.dtype is torch.float32]
    try:
        for tensor in changed:
            tensor.data = tensor.data.double()
        yield
    finally:
        for tensor in changed:
            tensor.data = tensor.data.float()
