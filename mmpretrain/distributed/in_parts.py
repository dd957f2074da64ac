"""Models that no rank holds whole, before DeepSpeed has them: of each large parameter every rank keeps one part.

While :meth:`InParts.in_use` lasts, code sees ordinary parameters. Whatever operation touches one finds it whole: it is
gathered from the ranks just before, stays for the next operations, and leaves again as soon as too many bytes are
there. So constructors, initializations, files that are loaded and trial runs work as they are, with the same random
numbers, and the model starts the same to the last bit as if it had been built whole.

All ranks must run the same operations in the same order. Outside of it a parameter has its shape, and NaN everywhere.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakValueDictionary

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook
from torch.nn.parameter import UninitializedParameter
from torch.overrides import TorchFunctionMode

from mmpretrain.distributed.world import World

SMALL = 2**14  # numbers; a parameter with fewer stays whole on every rank
RESIDENT = 2**26  # bytes of parameters that may be whole at a time, beside those of the operation that runs
_PART = "_mmpretrain_part"

_get: Any = torch.Tensor
_SET_DATA = _get.data.__set__
# What says nothing of the numbers; parameters show it without them.
_ATTRIBUTES = "shape dtype device layout ndim requires_grad grad grad_fn is_leaf is_meta is_cuda is_sparse is_quantized"
_METHODS = "size dim numel nelement element_size is_floating_point is_complex requires_grad_ data_ptr"
_BLIND = {
    *(getattr(_get, name).__get__ for name in _ATTRIBUTES.split()),
    *(getattr(_get, name) for name in _METHODS.split()),
    _get.requires_grad.__set__,
    _get.grad.__set__,
    _get.__hash__,
    _get.__len__,
    _get.__repr__,
}


class InParts:
    """Keeps the large parameters of what is built :meth:`in_use` in parts, one on each rank of ``world``.

    most: the most bytes of them that were whole at a time so far, on this rank.
    """

    def __init__(self, world: World, resident: int = RESIDENT) -> None:
        self.world, self.resident = world, resident
        self.most = 0
        # Held, not only known: what is whole must be the same on all ranks, whenever garbage is collected.
        self._whole: dict[int, nn.Parameter] = {}
        self._away: WeakValueDictionary[int, nn.Parameter] = WeakValueDictionary()  # by what stands for their numbers

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Take in every parameter that a module gets, and let every operation see whole ones."""
        hook = register_module_parameter_registration_hook(self._take_in)
        try:
            with _Gathering(self):
                yield
        finally:
            hook.remove()
            self._leave(0)

    def handed_over(self, module: nn.Module) -> Iterator[nn.Parameter]:
        """Every parameter of ``module`` once, whole and no longer kept here; a collective, not while in use."""
        for parameter in module.parameters():
            if hasattr(parameter, _PART):
                self.have([parameter])
                self._whole.pop(id(parameter))
                delattr(parameter, _PART)
            yield parameter

    def have(self, parameters: list[nn.Parameter]) -> None:
        """Make these whole; a collective."""
        for parameter in parameters:
            if id(parameter) not in self._whole:
                self._away.pop(parameter.data_ptr(), None)
                _fill(parameter, self.world)
            self._whole[id(parameter)] = self._whole.pop(id(parameter), parameter)  # the newest are at the end
        self.most = max(self.most, _bytes(self._whole.values()))

    def used(self, parameters: list[nn.Parameter]) -> None:
        """After an operation: let go of what was used longest ago, if there is too much."""
        self._leave(self.resident, {id(parameter) for parameter in parameters})

    def renew(self, parameter: nn.Parameter) -> None:
        """``parameter`` has just got new numbers, all of them."""
        self._away.pop(parameter.data_ptr(), None)
        self._whole[id(parameter)] = parameter

    def _take_in(self, _: nn.Module, __: str, parameter: Any) -> None:
        lazy = isinstance(parameter, UninitializedParameter)
        with torch._C.DisableTorchFunction():  # what happens here is not to be seen by the mode
            if lazy or parameter.is_meta or parameter.numel() < SMALL or hasattr(parameter, _PART):
                return
            # ``Parameter(other)`` shares what the other one has: no operation, so that nothing has made it whole.
            if (other := self._away.get(parameter.data_ptr())) is not None:
                self.have([other])
                parameter.data = other.data
            setattr(parameter, _PART, None)
            self._whole[id(parameter)] = parameter
            self.used([parameter])
            self.most = max(self.most, _bytes(self._whole.values()))

    def _leave(self, allowed: int, spared: set[int] | None = None) -> None:
        there = _bytes(self._whole.values())
        for key, parameter in list(self._whole.items()):
            if there <= allowed:
                break
            if spared and key in spared:
                continue
            there -= parameter.nbytes
            del self._whole[key]
            _empty(parameter, self.world)
            self._away[parameter.data_ptr()] = parameter


class _Gathering(TorchFunctionMode):
    """Hands operations whole parameters."""

    def __init__(self, parts: InParts) -> None:
        super().__init__()
        self._parts = parts

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run ``func``."""
        kwargs = kwargs or {}
        found = [] if func in _BLIND else list(_kept((args, kwargs)))
        if not found:
            return func(*args, **kwargs)
        if func is _SET_DATA and found[0] is args[0]:
            self._parts.have(found[1:])
            self._parts.renew(found[0])
        else:
            self._parts.have(found)
        result = func(*args, **kwargs)
        self._parts.used(found)
        return result


def _kept(values: Any) -> Iterator[nn.Parameter]:
    """The parameters that are kept in parts, anywhere in nested arguments."""
    if isinstance(values, nn.Parameter):
        if hasattr(values, _PART):
            yield values
    elif isinstance(values, list | tuple):
        for value in values:
            yield from _kept(value)
    elif isinstance(values, dict):
        yield from _kept(list(values.values()))


def _bytes(parameters: Any) -> int:
    return sum(parameter.nbytes for parameter in parameters)


@torch.inference_mode(False)
@torch.no_grad()
def _fill(parameter: nn.Parameter, world: World) -> None:
    """The numbers of all ranks into ``parameter``."""
    part: Tensor = getattr(parameter, _PART)
    flat = world.all_gather_rows(part.to(world.device)).to(part.device)
    parameter.data = flat[: parameter.numel()].view(parameter.shape)


@torch.inference_mode(False)
@torch.no_grad()
def _empty(parameter: nn.Parameter, world: World) -> None:
    """Keep this rank's part of the numbers alone."""
    flat = parameter.detach().reshape(-1)
    size = math.ceil(flat.numel() / world.size)
    mine = flat[world.rank * size : (world.rank + 1) * size]
    part = flat.new_zeros(size)
    part[: mine.numel()] = mine
    setattr(parameter, _PART, part)
    parameter.data = flat.new_full((), math.nan).expand(parameter.shape)
