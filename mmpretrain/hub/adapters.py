"""The adapters of a run with LoRA beside its merged release: a folder per encoder, as peft writes and opens them.

base = AutoModel.from_pretrained(BASE)  # what the encoder started from
encoder = PeftModel.from_pretrained(base, "RELEASE/adapter/image")
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from mmpretrain.config.lora import INSTALL, LoraConfig
from mmpretrain.hub.card_facts import AdapterFacts
from mmpretrain.problems import UnusableError
from mmpretrain.release_folder import ADAPTERS, release_name

_CONFIG, _WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_IN_PEFT, _ADAPTER = "base_model.model.", ".default."


@dataclass(frozen=True)
class EncoderAdapter:
    """The adapter of one encoder. name: the modality. base, revision: what it started from (None: random weights).

    matrices: A and B by their names in the encoder, ``LAYER.lora_A.default.weight``.
    """

    name: str
    settings: LoraConfig
    base: str | None
    revision: str | None
    matrices: Mapping[str, Tensor]


def write_adapters(folder: Path, adapters: Sequence[EncoderAdapter], turned: set[str]) -> None:
    """Write ``folder/adapter/NAME`` for each. turned: names of layers whose matrices lie the other way round.

    Raises UnusableError without peft, which knows the form of its config.
    """
    for adapter in adapters:
        inside = folder / ADAPTERS / adapter.name
        inside.mkdir(parents=True)
        _peft_config(adapter, turned).save_pretrained(str(inside))
        tensors = {_IN_PEFT + k.replace(_ADAPTER, "."): t.contiguous() for k, t in adapter.matrices.items()}
        save_file(tensors, inside / _WEIGHTS, metadata={"format": "pt"})


def adapter_facts(model: nn.Module, folder: Path) -> tuple[AdapterFacts, ...]:
    """What the card says of the adapters in a release's folder. model: the release's, on any device."""
    return tuple(_facts(model, path) for path in sorted(folder.glob(f"{ADAPTERS}/*/{_CONFIG}")))


def _facts(model: nn.Module, path: Path) -> AdapterFacts:
    config, name = json.loads(path.read_text(encoding="utf-8")), path.parent.name
    with safe_open(path.parent / _WEIGHTS, framework="pt") as file:
        trained = sum(math.prod(file.get_slice(key).get_shape()) for key in file.keys())  # noqa: SIM118 - no dict
    return AdapterFacts(
        name=name,
        rank=config["r"],
        scaling=config["lora_alpha"] / config["r"],
        base=config["base_model_name_or_path"],
        trained=trained,
        frozen=sum(parameter.numel() for parameter in model.get_submodule(f"encoders.{name}").parameters()),
    )


def _peft_config(adapter: EncoderAdapter, turned: set[str]) -> Any:
    try:
        import peft
    except ImportError as error:
        raise UnusableError([f"the adapters cannot be written without the package peft: {INSTALL}"]) from error
    settings = adapter.settings
    layers = sorted({name.split(".lora_")[0] for name in adapter.matrices})
    return peft.LoraConfig(
        r=settings.rank,
        lora_alpha=settings.scaling * (settings.rank or 0),
        lora_dropout=settings.dropout,
        target_modules=layers,
        fan_in_fan_out=all(f"encoders.{adapter.name}.backbone.{layer}" in turned for layer in layers),
        base_model_name_or_path=_public(adapter.base),
        revision=adapter.revision,
        inference_mode=True,
    )


def _public(base: str | None) -> str | None:
    """A name on the Hub as it is; of a folder what its release is called, for where it lay helps nobody."""
    if base is None or not (Path(base).is_absolute() or Path(base).exists()):
        return base
    return release_name(base) if Path(base).exists() else Path(base).name
