"""Numbers that augmentations always need, brought to a device once: a copy from the host in every step would wait."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor


@cache
def constant(values: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """[n] of these ``values`` on ``device``; not to be written to."""
    # Made within an evaluation it would otherwise be of no use to training.
    with torch.inference_mode(False):
        return torch.tensor(values, dtype=dtype, device=device)
