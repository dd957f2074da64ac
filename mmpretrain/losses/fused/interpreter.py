"""What Triton's interpreter (TRITON_INTERPRET=1) cannot do with bfloat16 is done around it, with the same result.

It multiplies the bits of bfloat16 as whole numbers, and cuts float32 off instead of rounding it. So it multiplies the
same values in float32, and torch rounds what it has written.
"""

from __future__ import annotations

import torch
import triton
from torch import Tensor

from mmpretrain.losses.fused.arguments import Matrix


def readable(scores: Matrix) -> Matrix:
    """``scores`` as a kernel can multiply them."""
    if scores.left is None or scores.right is None or not triton.knobs.runtime.interpret:
        return scores
    return Matrix.product(scores.left.float(), scores.right.float())


def writable(out: Tensor) -> Tensor:
    """``out``, or memory of a type that a kernel can write; see :func:`written`."""
    if out.dtype is not torch.bfloat16 or not triton.knobs.runtime.interpret:
        return out
    return torch.empty_like(out, dtype=torch.float32)


def written(out: Tensor, memory: Tensor) -> None:
    """Brings into ``out`` what a kernel wrote into ``memory``, of :func:`writable`."""
    if memory is not out:
        out.copy_(memory)
