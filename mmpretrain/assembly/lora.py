"""LoRA beside the layers of encoders, by peft: which layers, what stands against them, and how they get there.

The encoder stays the module that it was and keeps the names of its weights, but for the layers with an adapter: weight
W of layer L is then called ``L.base_layer.weight``, and A and B ``L.lora_A.default.weight`` and
``L.lora_B.default.weight``.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from mmpretrain.config.lora import INSTALL, KEY, LoraConfig, no_layers
from mmpretrain.config.root import Config
from mmpretrain.models.modeling_mmpretrain import MMPretrainModel
from mmpretrain.problems import UnusableError, nearest
from mmpretrain.words import listed

ADAPTER = "default"  # peft's name of the only one
# What stands before, between and behind the layers of an encoder.
_NO_LAYERS = ("embed", "pool", "position", "classifier", "downsample")


def add_adapters(config: Config, model: MMPretrainModel) -> None:
    """Freeze the encoders of ``config.model.lora`` in ``model``, and give their layers A and B, which train.

    A is drawn from torch's generator, B is zero: what the model computes stays the same. Raises UnusableError with
    everything that stands against it.
    """
    lora = config.model.lora
    backbones = {name: model.get_submodule(f"encoders.{name}.backbone") for name in lora.adapted(config.model.encoders)}
    problems = [p for name, backbone in backbones.items() for p in adapter_problems(config, name, backbone)]
    if problems := problems or _unmet_targets(lora, backbones):
        raise UnusableError(problems)
    for backbone in backbones.values():
        _add(lora, backbone)


def adapter_problems(config: Config, name: str, backbone: nn.Module) -> list[str]:
    """Why this encoder cannot have the LoRA that ``config`` wants of it, one sentence each; nothing without LoRA.

    backbone: that of modality ``name``; may be on the meta device.
    """
    lora, encoders = config.model.lora, config.model.encoders
    if name not in lora.adapted(encoders):
        return []
    if importlib.util.find_spec("peft") is None:
        return [f"{KEY} needs the package peft, which is not installed: {INSTALL}"]
    if not isinstance(backbone, PreTrainedModel):
        return [no_layers(name, "of this project's own", lora.others(name, encoders))]
    if chosen_layers(lora, backbone):
        return []
    suffixes = _suffixes(backbone)
    if lora.targets is None:
        return [f"{KEY}: encoder {name} ({backbone.config.model_type}) has no linear layers of attention and MLP"]
    hints = "".join(nearest(target, suffixes) for target in lora.targets[:1])
    asked = f"{KEY}.targets={lora.targets} names no linear layer of encoder {name}{hints}"
    return [f"{asked}: there are {listed(suffixes, 12)}"]


def _unmet_targets(lora: LoraConfig, backbones: Mapping[str, nn.Module]) -> list[str]:
    """A sentence for each target that names no layer of any of these encoders."""
    layers = [name for backbone in backbones.values() for name, _ in linear_layers(backbone)]
    known = sorted({suffix for backbone in backbones.values() for suffix in _suffixes(backbone)})
    return [
        f"{KEY}.targets: {target!r} names no linear layer of {' or '.join(backbones)}{nearest(target, known)}; there"
        f" are {listed(known, 12)}"
        for target in lora.targets or ()
        if not any(_called(name, target) for name in layers)
    ]


def chosen_layers(lora: LoraConfig, backbone: nn.Module) -> list[str]:
    """Names of the layers in ``backbone`` that get A and B."""
    if lora.targets is None:
        return [name for name, _ in linear_layers(backbone) if _in_a_layer(name)]
    return [name for name, _ in linear_layers(backbone) if any(_called(name, target) for target in lora.targets)]


def linear_layers(backbone: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Name and module of every linear layer that is called as a module: torch's own attention takes the weights out of
    its layers, so that what stands beside them would be passed over."""
    inside: tuple[str, ...] = ()
    for name, module in backbone.named_modules():
        if isinstance(module, nn.MultiheadAttention):
            inside += (f"{name}.",)
        if isinstance(module, nn.Linear | Conv1D) and not name.startswith(inside or ("\0",)):
            yield name, module


def adapter_notes(config: Config, name: str, backbone: nn.Module) -> list[str]:
    """What is good to know of this encoder's LoRA; nothing without. backbone: without adapters, of any device."""
    lora = config.model.lora
    if name not in lora.adapted(config.model.encoders) or lora.rank is None:
        return []
    layers = [backbone.get_submodule(layer) for layer in chosen_layers(lora, backbone)]
    sizes = [tuple(layer.weight.shape) for layer in layers]  # type: ignore[arg-type]
    trained = sum(lora.rank * (rows + columns) for rows, columns in sizes)
    found = [f"encoder {name}: LoRA of rank {lora.rank} in {len(layers)} layers, {trained:,} parameters trained"]
    smallest = min(min(size) for size in sizes)
    if lora.rank >= smallest:
        found.append(
            f"encoder {name}: {KEY}.rank={lora.rank} is not below the size of its smallest layer ({smallest}), whose"
            " adapter holds more numbers than the layer: a lower rank can learn as much there"
        )
    if config.model.encoders[name].pretrained is None:
        found.append(
            f"encoder {name} starts from random weights, and with LoRA they stay random: set"
            f" model.encoders.{name}.pretrained, or leave it out of {KEY}.modalities"
        )
    return found


@contextmanager
def noted_calls(encoder: nn.Module) -> Iterator[list[str]]:
    """While ``encoder`` runs: afterwards the list holds what kinds of layers have adapters that were never called.

    Some architectures take the weights out of their layers, and whatever stands beside them has no effect.
    """
    called, known, passed_over = set[str](), dict[str, nn.Module](_first_matrices(encoder)), list[str]()
    hooks = [part.register_forward_hook(lambda *_, name=name: called.add(_kind(name))) for name, part in known.items()]
    try:
        yield passed_over
        passed_over += sorted({_kind(name) for name in known} - called)
    finally:
        for hook in hooks:
            hook.remove()


def without_effect(name: str, passed_over: list[str]) -> str:
    """That what :func:`noted_calls` found in the encoder of modality ``name`` must have no adapter."""
    return (
        f"{KEY}: encoder {name} takes the weights out of {listed(passed_over, 5)} without calling these layers, so that"
        f" LoRA has no effect there: set {KEY}.targets to other layers, or leave {name} out of {KEY}.modalities"
    )


def _kind(name: str) -> str:
    """The same for a layer and those of its like in the other layers: without numbers."""
    return re.sub(r"\.\d+(?=\.)", "", name).removeprefix("backbone.")


def _add(lora: LoraConfig, backbone: nn.Module) -> None:
    import peft

    names = chosen_layers(lora, backbone)
    turned = all(isinstance(backbone.get_submodule(name), Conv1D) for name in names)
    settings = peft.LoraConfig(
        r=lora.rank,
        lora_alpha=lora.scaling * (lora.rank or 0),
        lora_dropout=lora.dropout,
        target_modules=names,
        fan_in_fan_out=turned,  # GPT-2's layers hold their matrices the other way round
    )
    meta = all(parameter.is_meta for parameter in backbone.parameters())
    peft.inject_adapter_in_model(settings, backbone, ADAPTER, low_cpu_mem_usage=meta)
    adapted = {layer for layer, _ in _first_matrices(backbone)}
    assert adapted == set(names), "peft chose other layers than were asked for"
    for name, parameter in backbone.named_parameters():
        parameter.requires_grad_(".lora_A." in name or ".lora_B." in name)


def _first_matrices(module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The layers with an adapter, by name, and the A of each."""
    end = f".lora_A.{ADAPTER}"
    return ((name.removesuffix(end), part) for name, part in module.named_modules() if name.endswith(end))


def _in_a_layer(name: str) -> bool:
    """Whether a linear layer belongs to one of an encoder's layers, which are numbered: attention and MLP."""
    parts = name.split(".")
    return any(part.isdigit() for part in parts) and not any(word in part for part in parts for word in _NO_LAYERS)


def _called(name: str, target: str) -> bool:
    return name == target or name.endswith(f".{target}")


def _suffixes(backbone: nn.Module) -> list[str]:
    """The last parts of the names of all linear layers in numbered ones."""
    return sorted({name.rsplit(".", 1)[-1] for name, _ in linear_layers(backbone) if _in_a_layer(name)})
