"""Parts of a model with the types that a test knows them to have: torch itself only says ``Tensor | Module``."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

from torch import nn

Part = TypeVar("Part", bound=nn.Module)


def submodule(module: nn.Module, path: str, kind: type[Part]) -> Part:
    """The module at ``path``, such as ``encoders.picture``; AssertionError if it is of another type than ``kind``."""
    found = module.get_submodule(path)
    assert isinstance(found, kind), f"{path} is a {type(found).__name__}"
    return found


def every(modules: Iterable[nn.Module], kind: type[Part]) -> list[Part]:
    """All of ``modules``; AssertionError if one is of another type than ``kind``."""
    found = []
    for module in modules:
        assert isinstance(module, kind), f"one is a {type(module).__name__}"
        found.append(module)
    return found


def linear_layers(module: nn.Module) -> list[nn.Linear]:
    """All linear layers inside of ``module``, in their order."""
    return [layer for layer in module.modules() if isinstance(layer, nn.Linear)]
