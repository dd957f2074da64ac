"""What ranks tell one another of a step, in one collective and one wait for the device."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mmpretrain.distributed.sending import sent
from mmpretrain.distributed.world import World

# As many numbers as each host tells of a step: whether it wishes to stop, its longest wait, its most memory.
OF_HOSTS = (0.0, 0.0, 0.0)


@dataclass(frozen=True)
class Told:
    """means: of scalars over the ranks, by name. most: of each of the hosts' own numbers, the largest on any rank.
    numbers: as given, whole numbers of the device."""

    means: dict[str, float]
    most: list[float]
    numbers: list[int]


def told_over_ranks(
    values: Mapping[str, Tensor], own: Sequence[float], world: World, numbers: Tensor | None = None
) -> Told:
    """values: scalars of the device. own: numbers of this host, equally many on every rank, kept in float32. numbers:
    int64 [n] below 2^53 that the host wants, too. A collective."""
    stacked = torch.stack([value.detach().float().reshape(()) for value in values.values()])
    places = torch.zeros(world.size, len(own))
    if own:
        places[world.rank] = torch.tensor(own)
    # Each rank's numbers have a place of their own in the sum, so that it shows all of them.
    total = world.all_reduce_sum(torch.cat([stacked, sent(places.flatten(), stacked.device)]))
    means, everyone = total[: len(values)] / world.size, total[len(values) :]
    rest = [] if numbers is None else [numbers.double()]
    read = torch.cat([means.double(), everyone.double(), *rest]).tolist()
    of_hosts = torch.tensor(read[len(values) : len(values) + len(everyone)]).view(world.size, len(own))
    return Told(
        dict(zip(values, read[: len(values)], strict=True)),
        of_hosts.amax(dim=0).tolist() if own else [],
        [int(number) for number in read[len(values) + len(everyone) :]],
    )
