"""Two small encoders and made-up pairs, for the examples beside this file."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

WHOLE_BATCH, WIDTH, STEPS = 16, 8, 5


class Towers(nn.Module):
    """An image and a text encoder."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.image, self.text = nn.Linear(12, WIDTH), nn.Linear(10, WIDTH)

    def forward(self, images: Tensor, texts: Tensor) -> tuple[Tensor, Tensor]:
        """[b, 12], [b, 10] -> two of [b, WIDTH]."""
        return self.image(images), self.text(texts)


def batches(rank: int, ranks: int) -> Iterator[tuple[Tensor, Tensor]]:
    """This rank's rows of the same batches, however many ranks share them."""
    generator = torch.Generator().manual_seed(1)
    for _ in range(STEPS):
        images, texts = (
            torch.randn(WHOLE_BATCH, 12, generator=generator),
            torch.randn(WHOLE_BATCH, 10, generator=generator),
        )
        own = slice(rank * WHOLE_BATCH // ranks, (rank + 1) * WHOLE_BATCH // ranks)
        yield images[own], texts[own]
