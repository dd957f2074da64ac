"""What a modality shares with another one and what only it knows (FactorCL: Liang et al., 2023, arXiv 2306.05268)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .heads_mmpretrain import MLPHead

# The term of the objective that each head serves: Z_S = [A, B], Z_U = [C, D, E].
SHARED = ("shared_lower", "shared_upper")
UNIQUE = ("task", "unique_upper", "unique_lower")


class FactorHeads(nn.Module):
    """Five MLPs on one modality's embedding, one per term of FactorCL's objective (its appendix D.1).

    A shared_lower InfoNCE(X1; X2), B shared_upper CLUB(X1; X2 | C), C task InfoNCE(X; T), D unique_upper CLUB(X1; X2),
    E unique_lower InfoNCE(X1; X2 | C). hidden, width: of every head, default that of the embedding. layers: further
    hidden layers.
    """

    def __init__(self, input_size: int, hidden: int | None, width: int | None, layers: int) -> None:
        super().__init__()
        self.width = width or input_size
        self.heads = nn.ModuleDict(
            {name: MLPHead(input_size, hidden or input_size, self.width, layers) for name in (*SHARED, *UNIQUE)}
        )

    def forward(self, embeds: Tensor) -> tuple[Tensor, Tensor]:
        """[b, d] -> shared [b, 2 w] (A, B) and unique [b, 3 w] (C, D, E)."""
        shared, unique = ([self.heads[name](embeds) for name in names] for names in (SHARED, UNIQUE))
        return torch.cat(shared, dim=1), torch.cat(unique, dim=1)
