"""Whether a new run trains what it says it trains: after its first steps every parameter must have moved.

An optimizer that is silently off, a part that no loss depends on: both look like training. A sum over each parameter's
bits, before the first step and after it, tells at any stage of ZeRO. Parameters may rest for a step (behind weights
that start at zero, or with a modality that a batch lacks), so it is taken several times.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from mmpretrain.distributed.world import World
from mmpretrain.words import listed

logger = logging.getLogger(__name__)

ENOUGH = 8  # steps of which, with warm-up over, a power of two decides


class Movement:
    """Watches the trainable parameters of a model that has not been stepped yet."""

    def __init__(self, module: nn.Module, optimizers: Mapping[str, Iterable[nn.Parameter]], world: World) -> None:
        """optimizers: name -> what it trains of ``module``; each of them must move something."""
        names = {id(parameter): name for name, parameter in module.named_parameters()}
        self._optimizers = {key: [names[id(p)] for p in trained] for key, trained in optimizers.items()}
        self._world = world
        watched = {name for trained in self._optimizers.values() for name in trained}
        self._still = {name: p for name, p in module.named_parameters() if name in watched}
        self._watched = len(watched)
        self._before = self._sums()
        self._steps = 0
        self.decided = False

    def stepped(self, warming_up: bool = False) -> None:
        """After every step that was taken, until it is ``decided``; a collective of those whose number is a power of 2.

        warming_up: whether rates are still below what was asked for, perhaps too small for float32; nothing is decided
        then but that all has moved. Otherwise, from ``ENOUGH`` steps on, parameters that have not moved are warned of.
        Raises ValueError when an optimizer has not moved anything.
        """
        self._steps += 1
        if self._steps & (self._steps - 1):
            return
        moved = self._world.all_reduce_max((self._sums() != self._before).long()).tolist()
        resting = [number for number, flag in enumerate(moved) if not flag]
        names = list(self._still)
        self._before = self._before[resting]
        self._still = {names[number]: self._still[names[number]] for number in resting}
        self.decided = not self._still or (self._steps >= ENOUGH and not warming_up)
        if self.decided and self._still:
            self._tell()

    def _tell(self) -> None:
        names = list(self._still)
        for optimizer, trained in self._optimizers.items():
            if trained and self._still.keys() >= set(trained):
                raise ValueError(
                    f"{optimizer} has moved none of its parameters in {self._steps} steps ({listed(trained)}): no loss"
                    " depends on them, or their learning rate is too small for float32; raise optim.lr, or report it if"
                    " that does not help"
                )
        if self._world.rank == 0:
            logger.warning(
                "%d of %d trained parameters have not moved in %d steps: no loss depended on them, or their learning"
                " rate is too small for float32 (%s)",
                len(names), self._watched, self._steps, listed(names),
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
