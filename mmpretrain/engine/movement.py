"""Whether a new run trains what it says it trains: after its first steps every parameter must have moved.

An optimizer that is silently off, a part that no loss depends on: both look like training. A sum over each parameter's
bits, before the first step and after it, tells at any stage of ZeRO. Parameters may rest for a step (behind weights
that start at zero, or with a modality that a batch lacks), so it is taken several times.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn

from mmpretrain.distributed.world import World
from mmpretrain.words import listed

logger = logging.getLogger(__name__)

AFTER = (1, 2, 4, 8)  # steps; the last one decides


class Movement:
    """Watches the trainable parameters of a model that has not been stepped yet."""

    def __init__(self, module: nn.Module, groups: Sequence[Iterable[nn.Parameter]], world: World) -> None:
        """groups: of the optimizer, whose parameters are those of ``module``; each of them must move."""
        names = {id(parameter): name for name, parameter in module.named_parameters()}
        self._groups = [{names[id(p)]: p for p in group} for group in groups]
        self._world = world
        self._still: Mapping[str, nn.Parameter] = {n: p for group in self._groups for n, p in group.items()}
        self._before = self._sums()
        self._steps = 0

    @property
    def decided(self) -> bool:
        """Whether there is nothing more to see."""
        return not self._still or self._steps >= AFTER[-1]

    def stepped(self) -> None:
        """After every step that was taken, until :attr:`decided`; a collective of some of them.

        Warns of parameters that have not moved when the last of ``AFTER`` was taken. Raises ValueError when a whole
        group of the optimizer has not.
        """
        self._steps += 1
        if self._steps not in AFTER:
            return
        moved = self._world.all_reduce_max((self._sums() != self._before).long()).tolist()
        resting = [number for number, flag in enumerate(moved) if not flag]
        names = list(self._still)
        self._before = self._before[resting]
        self._still = {names[number]: self._still[names[number]] for number in resting}
        if self.decided and self._still:
            self._tell()

    def _tell(self) -> None:
        names = list(self._still)
        for group in self._groups:
            if group and all(name in self._still for name in group):
                raise ValueError(
                    f"no parameter of a group of the optimizer has moved in {self._steps} steps"
                    f" ({listed(list(group))}): no loss depends on them, or their learning rate is too small for"
                    " float32; freeze them (model.encoders.NAME.freeze), or raise optim.lr or their lr_scale"
                )
        if self._world.rank == 0:
            logger.warning(
                "%d of %d trained parameters have not moved in %d steps, as no loss depends on them yet: %s",
                len(names), sum(map(len, self._groups)), self._steps, listed(names),
            )  # fmt: skip

    def _sums(self) -> Tensor:
        """int64, one for each parameter that has not moved yet: of the bits that this rank holds of it."""
        return torch.stack([_bits(_held(parameter)) for parameter in self._still.values()])


def _held(parameter: nn.Parameter) -> Tensor:
    """This rank's part under ZeRO 3, which leaves nothing in the parameter itself."""
    held: Tensor = getattr(parameter, "ds_tensor", parameter)
    return held.detach()


def _bits(tensor: Tensor) -> Tensor:
    # Sums of values would miss that half of them went up by as much as the others went down, as in Adam's first step.
    kind = {8: torch.int64, 4: torch.int32, 2: torch.int16}[tensor.element_size()]
    return tensor.contiguous().view(kind).sum(dtype=torch.int64)
