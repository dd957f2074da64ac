"""Layer-wise decay of the learning rate: which layer of its encoder a parameter belongs to.

As BEiT and open_clip count: of n layers, the parameters of layer k (from 1) learn with decay^(n + 1 - k) of the rate,
what lies below the first layer (embeddings) with decay^(n + 1), what lies above the last (norm, pooler, projection)
with the whole rate. Layers are found in the modules, not in names: a list of modules of one class. Where those are
stages, each with such a list of its own (Swin, ConvNext, ResNet), their blocks are the layers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from torch import nn

LEAST_SHARE = 0.5  # of a stage's parameters that its blocks hold, at least


class LayersNotFoundError(ValueError):
    """An encoder's layers cannot be told; the message says of which one, and the fix."""


@dataclass(frozen=True)
class _Found:
    """A list of layers. name: its own, within the backbone. layers: the names of the layers, from the first."""

    name: str
    layers: list[str]


def layer_factors(model: nn.Module, decay: float | None) -> dict[str, float]:
    """Parameter below ``model.encoders`` -> its factor of the learning rate; those that are not named have 1.

    Encoders of which nothing trains are left out; adapters inside a layer belong to it. Raises LayersNotFoundError.
    """
    found: dict[str, float] = {}
    if decay is None:
        return found
    for name, encoder in getattr(model, "encoders", {}).items():
        if not any(parameter.requires_grad for parameter in encoder.parameters()):
            continue
        backbone = encoder.backbone
        depths, count = depths_of(name, backbone)
        for parameter, depth in depths.items():
            found[f"encoders.{name}.backbone.{parameter}"] = decay ** (count + 1 - depth)
    return found


def layer_problems(model: nn.Module, decay: float | None) -> list[str]:
    """What stands against ``optim.layer_decay``, one sentence: the first encoder that lacks layers, or none trains."""
    try:
        found = layer_factors(model, decay)
    except LayersNotFoundError as error:
        return [str(error)]
    if decay is None or found:
        return []
    return ["optim.layer_decay has no effect: no encoder trains that has layers; leave it out"]


def depths_of(name: str, backbone: nn.Module) -> tuple[dict[str, int], int]:
    """(parameter -> its depth from 0 to n + 1, the number n of layers) of an encoder's backbone.

    name: of the encoder, for the message of the LayersNotFoundError that is raised.
    """
    stack = _stack(name, backbone)
    numbers = {layer: number for number, layer in enumerate(stack.layers, start=1)}
    tables = {f"{path}." for path, module in backbone.named_modules() if isinstance(module, nn.Embedding)}
    depths: dict[str, int] = {}
    depth = 0  # of what comes before the first layer
    for parameter, _ in backbone.named_parameters():
        number = _number(parameter, numbers)
        if number is not None:
            depths[parameter] = depth = number
        elif parameter.startswith(f"{stack.name}."):
            # In a stage, but in none of its blocks: what reduces the map, before its first block or after its last.
            depths[parameter] = depth if _is_after(parameter, stack, depth) else depth + 1
        else:
            below = depth == 0 or any(map(parameter.startswith, tables)) or "embed" in parameter
            depths[parameter] = 0 if below else len(numbers) + 1
    return depths, len(numbers)


def _number(parameter: str, numbers: Mapping[str, int]) -> int | None:
    parts = parameter.split(".")
    prefixes = (".".join(parts[:end]) for end in range(len(parts), 0, -1))
    return next((numbers[prefix] for prefix in prefixes if prefix in numbers), None)


def _is_after(parameter: str, stack: _Found, depth: int) -> bool:
    """Whether a parameter of a stage comes after blocks of the same stage."""
    if depth == 0:
        return False
    stage = ".".join(parameter.split(".")[: stack.name.count(".") + 2])
    return stack.layers[depth - 1].startswith(f"{stage}.")


def _stack(name: str, backbone: nn.Module) -> _Found:
    """The backbone's one list of layers. Raises LayersNotFoundError if there is none, or another one beside it."""
    lists: list[_Found] = []
    for path, module in backbone.named_modules():
        inside = any(path.startswith(f"{found.name}.") for found in lists)
        if not inside and isinstance(module, nn.ModuleList) and _alike(module):
            lists.append(_Found(path, list(_layers(path, module))))
    lists = [found for found in lists if _has_matrices(backbone.get_submodule(found.name))] or lists
    if len(lists) != 1:
        what = f"{len(lists)} lists of layers ({', '.join(found.name for found in lists)})" if lists else "no layers"
        raise LayersNotFoundError(
            f"optim.layer_decay: {what} were found in model.encoders.{name} ({type(backbone).__name__}), so that none"
            " can be said to be deeper than another: leave optim.layer_decay out, or freeze that encoder"
        )
    return lists[0]


def _layers(path: str, modules: nn.ModuleList) -> Iterator[str]:
    """The names of the layers in a list: its modules, or the blocks of each of them."""
    inner = [_blocks(module) for module in modules]
    for number, blocks in enumerate(inner):
        if all(inner) and blocks is not None:
            between = f".{blocks[0]}" if blocks[0] else ""
            yield from (f"{path}.{number}{between}.{block}" for block in range(len(blocks[1])))
        else:
            yield f"{path}.{number}"


def _blocks(stage: nn.Module) -> tuple[str, nn.ModuleList | nn.Sequential] | None:
    """(name, blocks) of a stage; None for a module that is a layer itself."""
    whole = sum(parameter.numel() for parameter in stage.parameters())
    for name, module in [("", stage), *stage.named_children()]:
        if isinstance(module, nn.ModuleList | nn.Sequential) and _alike(module) and "expert" not in name:
            held = sum(parameter.numel() for parameter in module.parameters())
            if held >= LEAST_SHARE * whole:
                return name, module
    return None


def _alike(modules: nn.ModuleList | nn.Sequential) -> bool:
    """Whether all are of one class and have parameters."""
    return len({type(module) for module in modules}) == 1 and all(any(True for _ in m.parameters()) for m in modules)


def _has_matrices(module: nn.Module) -> bool:
    """Whether there are linear layers in it: of the lists in an encoder of sounds, convolutions only prepare."""
    return any(isinstance(part, nn.Linear) for part in module.modules())
