"""The projection head that contrastive losses look through in training, and that is dropped afterwards."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmpretrain.distributed.batch_norm import normalized_where
from mmpretrain.distributed.world import World


class ProjectionHead(nn.Sequential):
    """Linear - BatchNorm - ReLU - Linear - BatchNorm - ReLU - Linear: [b, input_size] -> [b, output_size].

    Its batch norms look at the batch as a whole: the engine turns them into ones over all ranks, and each embedding of
    a sample must go through the head in a call of its own. Initialization is torch's.
    """

    def __init__(self, input_size: int, hidden_size: int, output_size: int) -> None:
        super().__init__(
            nn.Linear(input_size, hidden_size),
            nn.BatchNorm1d(hidden_size),
            nn.ReLU(),
            nn.Linear(hidden_size, hidden_size),
            nn.BatchNorm1d(hidden_size),
            nn.ReLU(),
            nn.Linear(hidden_size, output_size),
        )

    def where(self, rows: Tensor, counted: Tensor, world: World) -> Tensor:
        """[b, output_size]: of rows that count (bool [b]) what a call on them alone gives, in training mode, 0 of the
        others; of no size that the host would have to know. NaN where less than two rows count. A collective."""
        hidden = ~counted[:, None]
        rows = rows.masked_fill(hidden, 0)  # they may hold anything
        for layer in self:
            rows = normalized_where(layer, rows, counted, world) if isinstance(layer, _BatchNorm) else layer(rows)
        return rows.masked_fill(hidden, 0)
