"""A split once, as methods look at it after their last step."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from mmpretrain.data.stream import Stream
from mmpretrain.methods.base import Once


def once(stream: Stream, size: int) -> Iterator[Once]:
    """The rank's share of a split, in batches of ``size``, each with which of its rows count."""
    for number, batch in enumerate(stream.split_batches(size)):
        # A row past the end, or one that could not be read, has another sample's ordinal.
        first = (number * stream.world_size + stream.rank) * size
        yield batch, batch.positions == torch.arange(first, first + size, device=batch.positions.device)
