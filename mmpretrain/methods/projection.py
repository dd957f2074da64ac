"""The projection head that contrastive losses look through in training, and that is dropped afterwards."""

from __future__ import annotations

from torch import nn


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
