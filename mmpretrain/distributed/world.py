"""The ranks that train together, as the rest of the project sees them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor

from mmpretrain.distributed import collectives


@dataclass(frozen=True)
class World:
    """This process among ``size`` ranks. device: where flags of collectives live (a GPU under NCCL).

    patient_group: the same ranks on gloo, with a time limit of hours; see :meth:`max_flag`. even: the caller sees to it
    that all ranks hold equally many rows, as a run's stream does; losses ask in a collective of their own otherwise.
    ahead: nothing that losses do may wait for the device: where they would look at a number to refuse it, or to compute
    it better, the loss becomes NaN instead, and the caller, who sees that, asks again with ``ahead=False``.

    A world of one needs no process group: all its collectives return their argument.
    """

    rank: int = 0
    size: int = 1
    group: collectives.Group = None
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    patient_group: collectives.Group = None
    even: bool = False
    ahead: bool = False

    @classmethod
    def single(cls) -> World:
        """One process on its own."""
        return cls()

    def with_patience(self, limit: timedelta) -> World:
        """The same ranks with a ``patient_group`` of this time limit. A collective: every rank must call it."""
        if self.size == 1:
            return self
        return replace(self, patient_group=dist.new_group(backend="gloo", timeout=limit))

    @classmethod
    def current(cls, device: torch.device | str = "cpu", group: collectives.Group = None) -> World:
        """The ranks of ``group`` (default: all); one process on its own when no process group was started."""
        if not dist.is_initialized():
            return cls(device=torch.device(device))
        return cls(dist.get_rank(group), dist.get_world_size(group), group, torch.device(device))

    def all_gather_rows(self, rows: Tensor) -> Tensor:
        """[b, ...] -> [size b, ...], rank-major, differentiable."""
        return rows if self.size == 1 else collectives.all_gather_rows(rows, self.group)

    def gather_rows(self, rows: Tensor) -> Tensor | None:
        """[b, ...] -> [size b, ...], rank-major, on rank 0; None elsewhere. Not differentiable."""
        return rows if self.size == 1 else collectives.gather_rows(rows, self.group)

    def all_reduce_sum(self, values: Tensor) -> Tensor:
        """The sum over all ranks, same shape, differentiable."""
        return values if self.size == 1 else collectives.all_reduce_sum(values, self.group)

    def average_gradient(self, values: Tensor) -> Tensor:
        """``values``, whose gradient becomes the mean of all ranks' gradients."""
        return values if self.size == 1 else collectives.average_gradient(values, self.group)

    def all_reduce_max(self, values: Tensor) -> Tensor:
        """The largest over all ranks, element by element, same shape; not differentiable."""
        return values if self.size == 1 else collectives.all_reduce_max(values, self.group)

    def all_to_all(self, values: Tensor, sent: Sequence[int], received: Sequence[int]) -> Tensor:
        """``values`` [n], cut by ``sent``, one part for each rank -> what the ranks sent to this one, in their order.

        received: numbers that each of them sends; not differentiable.
        """
        return values if self.size == 1 else collectives.all_to_all(values, sent, received, self.group)

    def max_flag(self, flag: bool, *, patient: bool = False) -> bool:
        """Whether any rank raised ``flag``; the same answer on all ranks.

        patient: for waits on work that only one rank does (a probe, a release), which may outlast a collective's normal
        time limit.
        """
        if self.size == 1:
            return flag
        if patient and self.patient_group is not None:
            return bool(collectives.all_reduce_sum(torch.tensor([float(flag)]), self.patient_group).item())
        return bool(self.all_reduce_sum(torch.tensor([float(flag)], device=self.device)).item())

    def barrier(self, *, patient: bool = False) -> None:
        """Wait until every rank has arrived; ``patient`` as in :meth:`max_flag`."""
        # The answer of a flag is read on the host: no rank goes on before all have entered, on any backend.
        self.max_flag(False, patient=patient)
