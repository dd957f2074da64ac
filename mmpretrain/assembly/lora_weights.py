"""Weights with LoRA in them, by name: what they are called where there is none, and their sum (without peft).

A layer L with an adapter holds ``L.base_layer.weight`` (W), ``L.lora_A.default.weight`` and
``L.lora_B.default.weight``; the same layer without one holds ``L.weight``, here W + scaling B A.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

_BASE, _PART = ".base_layer.", re.compile(r"(.+)\.lora_([AB])\.default\.weight")
_OF_ENCODER = re.compile(r"encoders\.([^.]+)\.backbone\.(.+)")


def plain_name(name: str) -> str | None:
    """What a tensor is called in the same model without LoRA; None for A and B, which are not there."""
    return None if _PART.fullmatch(name) else name.replace(_BASE, ".")


def has_adapters(names: Iterable[str]) -> bool:
    """Whether there is an A or a B among these names."""
    return any(_PART.fullmatch(name) for name in names)


@dataclass(frozen=True)
class Layout:
    """How the tensors of a model without LoRA come from one with it.

    origins: plain name -> name. products: plain name of a W that has an adapter -> the names of its A and B. turned:
    those of them that lie the other way round, [in, out]. scaling: how often B A counts.
    """

    origins: dict[str, str]
    products: dict[str, tuple[str, str]]
    turned: set[str]
    scaling: float

    @classmethod
    def of(cls, names: Iterable[str], plain: nn.Module, scaling: float) -> Layout:
        """names: of all tensors of the model with LoRA, in their order. plain: the one without, on any device."""
        origins, products = dict[str, str](), dict[str, tuple[str, str]]()
        for name in names:
            if (without := plain_name(name)) is not None:
                origins[without] = name
            elif found := _PART.fullmatch(name):
                layer = found.group(1)
                products[f"{layer}.weight"] = (f"{layer}.lora_A.default.weight", f"{layer}.lora_B.default.weight")
        return cls(origins, products, {f"{name}.weight" for name in turned_layers(plain)}, scaling)

    def merged(self, name: str, read: Callable[[str], Tensor]) -> Tensor:
        """The tensor of that name in the model without LoRA: W + scaling B A, in float32, where there is an adapter.

        read: name -> tensor, of the model with it; what it gives need not outlive the next call.
        """
        base = read(self.origins[name])
        if name not in self.products:
            return base
        base = base.float().clone()
        down, up = (read(part).float().clone() for part in self.products[name])
        product = (up @ down) * self.scaling
        return base + (product.T if name in self.turned else product)


class MergedState(Mapping[str, Tensor]):
    """The state of a model with LoRA as of one without: A and B are added when a tensor is asked for."""

    def __init__(self, state: Mapping[str, Tensor], layout: Layout) -> None:
        self._state, self._layout = state, layout

    def __getitem__(self, name: str) -> Tensor:
        return self._layout.merged(name, self._state.__getitem__)

    def __iter__(self) -> Iterator[str]:
        return iter(self._layout.origins)

    def __len__(self) -> int:
        return len(self._layout.origins)


def turned_layers(plain: nn.Module) -> set[str]:
    """Names of the layers whose W lies the other way round, as GPT-2's do."""
    return {name for name, module in plain.named_modules() if isinstance(module, Conv1D)}


def adapters(state: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """Modality -> A and B of its encoder by their names below the backbone (``LAYER.lora_A.default.weight``)."""
    found: dict[str, dict[str, Tensor]] = {}
    for name in state:
        if (inside := _OF_ENCODER.fullmatch(name)) and _PART.fullmatch(name):
            found.setdefault(inside.group(1), {})[inside.group(2)] = state[name].clone()
    return found
