"""Where a run stands: what augmentations and methods may know, and draw from."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from mmpretrain.data.seeds import sub_seed


@dataclass(frozen=True)
class Step:
    """Where the run stands.

    index: optimizer steps done. epoch: samples seen before this step over the size of the dataset.
    total_epochs: the whole run in the same unit. seed: of the run.
    """

    index: int
    epoch: float
    total_epochs: float
    seed: int

    def sub_seed(self, position: int, *tags: str | int) -> int:
        """A seed in [0, 2^63): a function of the run's seed, ``position`` and ``tags`` alone."""
        return sub_seed(self.seed, position, *tags)

    def generator(self, position: int, *tags: str | int) -> torch.Generator:
        """A fresh CPU generator seeded by :meth:`sub_seed`: the same draws on any rank and restart."""
        return torch.Generator().manual_seed(self.sub_seed(position, *tags))
