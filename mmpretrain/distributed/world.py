"""The ranks that train together, as the rest of the project sees them."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
import torch.distributed as dist
from torch import Tensor

from mmpretrain.distributed import collectives


@dataclass(frozen=True)
class World:
    """This process among ``size`` ranks. device: where flags of collectives live (a GPU under NCCL).

    A world of one needs no process group: all its collectives return their argument.
    """

    rank: int = 0
    size: int = 1
    group: collectives.Group = None
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @classmethod
    def single(cls) -> World:
        """One process on its own."""
        return cls()

    @classmethod
    def current(cls, device: torch.device | str = "cpu", group: collectives.Group = None) -> World:
        """The ranks of ``group`` (default: all); one process on its own when no process group was started."""
        if not dist.is_initialized():
            return cls(device=torch.device(device))
        return cls(dist.get_rank(group), dist.get_world_size(group), group, torch.device(device))

    def all_gather_rows(self, rows: Tensor) -> Tensor:
        """[b, ...] -> [size b, ...], rank-major, differentiable."""
        return rows if self.size == 1 else collectives.all_gather_rows(rows, self.group)

    def all_reduce_sum(self, values: Tensor) -> Tensor:
        """The sum over all ranks, same shape, differentiable."""
        return values if self.size == 1 else collectives.all_reduce_sum(values, self.group)

    def max_flag(self, flag: bool) -> bool:
        """Whether any rank raised ``flag``; the same answer on all ranks."""
        if self.size == 1:
            return flag
        return bool(self.all_reduce_sum(torch.tensor([float(flag)], device=self.device)).item())

    def barrier(self) -> None:
        """Wait until every rank has arrived."""
        # The answer of a flag is read on the host: no rank goes on before all have entered, on any backend.
        self.max_flag(False)
