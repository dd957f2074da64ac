"""Which number format tensors are computed in."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers.utils import logging

logger: Any = logging.get_logger(__name__)

# Layers compute in these. Weights in other formats (whole numbers, float8) are quantized: their layers cast what comes.
COMPUTED = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def as_weight(x: Tensor, weight: Tensor) -> Tensor:
    """``x`` in the format of ``weight``; beside quantized weights it stays as it is."""
    return x.to(weight.dtype) if weight.dtype in COMPUTED else x


def computing_dtype(module: nn.Module) -> torch.dtype | None:
    """The format of the first parameter that is not quantized; None: there is none."""
    return next((weight.dtype for weight in module.parameters() if weight.dtype in COMPUTED), None)


def as_computed(tensors: dict[str, Tensor], module: nn.Module) -> dict[str, Tensor]:
    """``tensors`` for ``module``: those of floats in its format, others (ids, masks) as they are."""
    dtype = computing_dtype(module)
    if dtype is None:
        return tensors
    return {key: t.to(dtype) if t.is_floating_point() else t for key, t in tensors.items()}


def warn_of_rounding(model: Any) -> None:
    """Say, once, that codes which whitening makes are magnified rounding where encoders compute in few bits."""
    if torch.compiler.is_compiling():
        return
    if getattr(model, "hf_quantizer", None) is not None or model.dtype in (torch.float16, torch.bfloat16):
        logger.warning_once(
            "shared_embeds and unique_embeds of this model are whitened, which magnifies the rounding of weights that"
            " are quantized or of 16 bits: use them in float32 only. Its embeds are close to those in float32."
        )
