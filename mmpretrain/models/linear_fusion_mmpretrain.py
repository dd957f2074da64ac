"""The linear fusion to which CoMM compares its transformer (Dufumier et al., ICLR 2025, arXiv 2409.07402, table 4).

One linear map for each modality alone, and one for the pooled features of all of them side by side. What comes out is a
sum over modalities, in which a linear probe finds nothing that only their combination says. What happens to samples and
calls that lack modalities, and the initial weights (Xavier), are this project's choice.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .heads_mmpretrain import init_linear
from .precision_mmpretrain import as_weight


class LinearFusion(nn.Module):
    """Pooled features of the encoders -> an embedding of each modality alone, and one of all together.

    features: modality -> width of its pooled features, in the order of modalities. width: of the embeddings.
    """

    def __init__(self, features: dict[str, int], width: int) -> None:
        super().__init__()
        self.width, self.features = width, dict(features)
        self.alone = nn.ModuleDict({name: nn.Linear(size, width) for name, size in features.items()})
        self.together = nn.Linear(sum(features.values()), width)
        for layer in self.modules():
            if isinstance(layer, nn.Linear):
                init_linear(layer)

    def forward(self, pooled: dict[str, Tensor], present: dict[str, Tensor]) -> tuple[dict[str, Tensor], Tensor]:
        """Features [b, f] of the modalities that were passed -> (modality -> [b, d], all of them together [b, d]).

        present: modality -> bool [b]; features of a modality that a sample lacks count as 0. The whole of a sample with
        one modality is that modality's own embedding, as under the transformer.
        """
        first = next(iter(pooled.values()))
        there = {name: present.get(name, first.new_ones(first.shape[0], dtype=torch.bool)).bool() for name in pooled}
        # In the type of the weights: autocast leaves some modalities' features in half precision.
        kept = {n: as_weight(rows, self.together.weight) * there[n][:, None] for n, rows in pooled.items()}
        dtype = next(iter(kept.values())).dtype
        alone = {name: self.alone[name](rows) for name, rows in kept.items()}
        absent = {n: first.new_zeros(first.shape[0], size, dtype=dtype) for n, size in self.features.items()}
        together = self.together(torch.cat([kept.get(name, absent[name]) for name in self.features], dim=1))
        only = sum(rows * there[name][:, None] for name, rows in alone.items())
        single = torch.stack(list(there.values())).sum(dim=0) == 1
        return alone, torch.where(single[:, None], only, together)
