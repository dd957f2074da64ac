"""What of a model trains, in the groups and with the types in which DeepSpeed keeps and moves it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mmpretrain.config.engine import OptimizerName, Precision
from mmpretrain.config.root import Config
from mmpretrain.engine.matrices import hidden_matrices
from mmpretrain.engine.optimizer import parameter_groups

FULL = 4  # bytes of a float32
# Whose weights' gradients DeepSpeed reduces, and ZeRO-3 gathers, in the type that encoders compute in.
_LOW = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


@dataclass(frozen=True)
class Group:
    """Parameters with one learning rate and decay. matrices: whether Muon takes them."""

    parameters: tuple[nn.Parameter, ...]
    matrices: bool

    @property
    def numel(self) -> int:
        """Numbers in it."""
        return sum(parameter.numel() for parameter in self.parameters)

    def aligned(self, ranks: int) -> int:
        """The same with the padding of ZeRO 1 and 2, which lets every rank have an even number of numbers."""
        return math.ceil(self.numel / (2 * ranks)) * 2 * ranks

    def shares(self, ranks: int) -> int:
        """Numbers on each rank under ZeRO 3, which divides every parameter apart."""
        return sum(share(parameter, ranks) for parameter in self.parameters)

    @property
    def states(self) -> int:
        """Float32 numbers that the optimizer keeps of every parameter."""
        return 1 if self.matrices else 2


@dataclass(frozen=True)
class Layout:
    """A model as the engine trains it. low: ids of the parameters that move in 16 bits."""

    groups: tuple[Group, ...]
    frozen: tuple[nn.Parameter, ...]
    buffers: tuple[Tensor, ...]
    low: frozenset[int]

    @property
    def trained(self) -> int:
        """Numbers that train."""
        return sum(group.numel for group in self.groups)

    @property
    def all(self) -> list[nn.Parameter]:
        """Every parameter, trained or frozen."""
        return [*(parameter for group in self.groups for parameter in group.parameters), *self.frozen]

    @property
    def numel(self) -> int:
        """Numbers of all of them."""
        return sum(parameter.numel() for parameter in self.all)

    def moved(self, parameter: nn.Parameter) -> int:
        """Bytes per number of its gradient on the wire, and of itself where it is gathered."""
        return 2 if id(parameter) in self.low else FULL


def share(parameter: nn.Parameter, ranks: int) -> int:
    """Numbers of it on each rank under ZeRO 3."""
    return math.ceil(parameter.numel() / ranks)


def layout_of(config: Config, model: nn.Module) -> Layout:
    """The layout of ``model``, which may be on the meta device, as ``config`` trains it."""
    muon = config.optim.name is OptimizerName.muon
    matrices = hidden_matrices(model) if muon else frozenset()
    groups = parameter_groups(model, config.optim, config.model.encoders, matrices)
    found = tuple(Group(tuple(group["params"]), bool(group.get("matrices"))) for group in groups)
    frozen = tuple(parameter for parameter in model.parameters() if not parameter.requires_grad)
    low = () if config.engine.precision is Precision.float32 else _low(model)
    return Layout(found, frozen, tuple(model.buffers()), frozenset(low))


def _low(model: nn.Module) -> list[int]:
    layers = (layer for layer in model.modules() if type(layer) in _LOW)
    return [id(p) for layer in layers for p in layer.parameters(recurse=False)]


def bytes_of(tensors: tuple[Tensor, ...] | list[Tensor]) -> int:
    """Of all of them."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def kept_whole(config: Config) -> int:
    """ZeRO 3: parameters of fewer numbers than that stay whole on every rank between steps."""
    zero = config.engine.deepspeed.get("zero_optimization") or {}
    return int(zero.get("stage3_param_persistence_threshold", 100_000))


def autocast_type(precision: Precision) -> torch.dtype | None:
    """What encoders compute in; None: float32."""
    return None if precision is Precision.float32 else getattr(torch, precision.value)
