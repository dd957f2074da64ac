"""What a modality has in common with the others and what is its own: MUCMM (reconstruction), arXiv 2305.03125.

Of the paper, only title, abstract and the first lines of the introduction were read; what follows is this project's
reading of them (docs/methods/mucmm.md). With h the modality's embedding, and each code made by a head (C, U), linear without bias or an MLP:

    x = (h - center) whitening,    c = (C(x) - mean_c) rotation_c,    u = (U(x) - mean_u) rotation_u

center and whitening are the statistics of embeddings at the start, mean and rotation those of the codes at the end:
until then codes are what the heads give, in a release they are centered and white on the training data, c along the
canonical directions in the order of ``rho``, u along those in which it explains most of h.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers import initialization as init

from .heads_mmpretrain import MLPHead


class Code(nn.Module):
    """[b, d] -> [b, k]: a head, and the frozen ``mean`` [k] and ``rotation`` [k, k] of what it gives."""

    mean: Tensor
    rotation: Tensor

    def __init__(self, input_size: int, width: int, hidden: int | None) -> None:
        super().__init__()
        self.width = width
        self.head = MLPHead(input_size, hidden, width) if hidden else nn.Linear(input_size, width, bias=False)
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("rotation", torch.eye(width))

    @torch.no_grad()
    def initialize_(self) -> None:
        """A linear head starts as a random orthogonal projection; weights that were just loaded stay."""
        if isinstance(self.head, nn.Linear):
            init.orthogonal_(self.head.weight)

    def forward(self, x: Tensor) -> Tensor:
        """``x`` [b, d] -> [b, k]."""
        return (self.head(x) - self.mean) @ self.rotation


class Components(nn.Module):
    """One modality's embedding [b, d] -> its common code [b, common] and its individual code [b, individual].

    hidden: units of both heads, MLPs of one hidden layer; None: linear heads. Buffers: ``center`` [d], ``whitening``
    [d, d] (columns beyond the directions that were kept are 0), ``rho`` [common], the correlations of the common codes
    (0 until they are known). Codes are computed in the type of the weights, whatever autocast says.
    Raises ValueError for linear heads that give more codes together than the embedding has dimensions.
    """

    center: Tensor
    whitening: Tensor
    rho: Tensor

    def __init__(self, input_size: int, common: int, individual: int, hidden: int | None = None) -> None:
        super().__init__()
        if hidden is None and common + individual > input_size:
            raise ValueError(
                f"{common} common and {individual} individual dimensions cannot come out of an embedding of"
                f" {input_size} without being correlated: use at most {input_size} together"
            )
        self.register_buffer("center", torch.zeros(input_size))
        self.register_buffer("whitening", torch.eye(input_size))
        self.register_buffer("rho", torch.zeros(common))
        self.common = Code(input_size, common, hidden)
        self.individual = Code(input_size, individual, hidden)

    def forward(self, embeds: Tensor) -> tuple[Tensor, Tensor]:
        """``embeds`` [b, d], any float type -> common [b, common] and individual [b, individual]."""
        with torch.autocast(embeds.device.type, enabled=False):
            x = (embeds.to(self.center.dtype) - self.center) @ self.whitening
            return self.common(x), self.individual(x)
