"""Losses with known faults, and some that cannot be run."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmpretrain.distributed.world import World


def own_rows_live(image: Tensor, text: Tensor, scale: Tensor) -> Tensor:
    """The whole batch on every rank, with gradients for its own rows alone: right by 1/W."""
    return _whole(_live(image), _live(text), scale)


def summed(image: Tensor, text: Tensor) -> Tensor:
    """W times the loss."""
    world = World.current()
    return world.size * _whole(world.all_gather_rows(image), world.all_gather_rows(text), torch.tensor(5.0).double())


class Alone(nn.Module):
    """Negatives of the rank alone; scale: of the logits."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor([scale]))

    def forward(self, image: Tensor, text: Tensor) -> dict[str, Tensor]:
        """[b, d] twice -> ``loss``."""
        return {"loss": _whole(image, text, self.scale)}


def breaks_on_two(image: Tensor, text: Tensor) -> Tensor:
    """Fails where there is another rank."""
    if World.current().size > 1:
        raise RuntimeError("no second rank was thought of")
    return (image * text).sum()


def gives_rows(image: Tensor, text: Tensor) -> Tensor:
    """No scalar."""
    return image * text


def _live(rows: Tensor) -> Tensor:
    world = World.current()
    everyone = list(world.all_gather_rows(rows).detach().split(len(rows)))
    everyone[world.rank] = rows
    return torch.cat(everyone)


def _whole(image: Tensor, text: Tensor, scale: Tensor) -> Tensor:
    logits, labels = scale * image @ text.T, torch.arange(len(image))
    return (F.cross_entropy(logits, labels) + F.cross_entropy(logits.T, labels)) / 2
