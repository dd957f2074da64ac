"""Entries of our own architectures in the model's config, checked and completed from the data (not shipped)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from mmpretrain.config.data import ModalityConfig
from mmpretrain.config.model import EncoderConfig
from mmpretrain.problems import UnusableError, nearest

# What each takes: sizes that the data knows, keywords that must be given, and those that have a default.
_KEYS = {
    "mlp": (("input_size",), ("hidden_size", "output_size"), ("layers",)),
    "identity": (("input_size",), (), ()),
    "cnn": (("input_channels", "image_size"), ("layers",), ("batch_norm",)),
    "sequence": (("input_size",), ("width",), ("layers", "heads", "ff", "dropout", "pre_norm")),
}
_UNITS = {"input_size": "features", "input_channels": "channels", "image_size": "pixels"}
_LAYER = ("channels", "kernel", "stride", "padding", "pool", "pool_stride")
_MAY_BE_0 = {"padding", "pool"}


def own_config(where: str, encoder: EncoderConfig, modality: ModalityConfig) -> dict[str, Any]:
    """Constructor arguments of the architecture. where: the encoder's key. Raises UnusableError."""
    architecture = str(encoder.architecture)
    sized, required, optional = _KEYS[architecture]
    check_keywords(where, encoder.config, (*sized, *required, *optional))
    sizes = _sizes(architecture, modality)
    config = {**sizes, **encoder.config}
    problems = [f"{where}.config.{k} is missing: the {architecture} needs it" for k in required if k not in config]
    problems += _values(architecture, f"{where}.config", {k: v for k, v in config.items() if k not in sizes})
    problems += [
        f"{where}.config.{key} is {config[key]}, but the data has {'x'.join(map(str, _several(size)))}"
        f" {_UNITS[key]}: leave it out"
        for key, size in sizes.items()
        if config[key] != size
    ]
    if problems:
        raise UnusableError(problems)
    return config


def check_keywords(where: str, given: Iterable[str], known: Iterable[str]) -> None:
    """Raises UnusableError with every keyword in ``WHERE.config`` that the architecture does not take."""
    unknown = sorted(set(given) - set(known))
    if unknown:
        raise UnusableError(f"{where}.config.{key}: unknown keyword{nearest(key, known)}" for key in unknown)


def _sizes(architecture: str, modality: ModalityConfig) -> dict[str, Any]:
    if architecture == "cnn":
        return {"input_channels": modality.channels, "image_size": list(modality.size)}
    return {"input_size": modality.size[-1]}


def _values(architecture: str, where: str, config: dict[str, Any]) -> list[str]:
    """Problems of the values that the config gives, one sentence each."""
    switches = [key for key in ("batch_norm", "pre_norm") if not isinstance(config.get(key, True), bool)]
    found = [f"{where}.{key} is {config[key]!r}: true or false is needed" for key in switches]
    whole = {k: v for k, v in config.items() if k not in ("batch_norm", "pre_norm", "dropout")}
    if architecture == "cnn":
        layers = whole.pop("layers", None)
        found += [] if layers is None else _layers(f"{where}.layers", layers)
    found += _whole(where, whole, {"layers"} if architecture == "mlp" else set())
    dropout = config.get("dropout", 0.0)
    if isinstance(dropout, bool) or not isinstance(dropout, (int, float)) or not 0 <= dropout < 1:
        found.append(f"{where}.dropout is {dropout!r}: a number from 0 to below 1 is needed")
    width, heads = config.get("width"), config.get("heads", 5)
    if architecture == "sequence" and not found and width is not None and width % heads:
        found.append(f"{where}.heads is {heads}: it must divide width={width}")
    return found


def _layers(where: str, layers: Any) -> list[str]:
    if not isinstance(layers, list) or not layers or not all(isinstance(layer, dict) for layer in layers):
        return [f"{where} is {layers!r}: a list of mappings is needed, such as [{{channels: 16}}]"]
    found = []
    for number, layer in enumerate(layers):
        here = f"{where}[{number}]"
        found += [f"{here}.{key}: unknown keyword{nearest(key, _LAYER)}" for key in layer if key not in _LAYER]
        found += [] if "channels" in layer else [f"{here}.channels is missing"]
        found += _whole(here, {key: value for key, value in layer.items() if key in _LAYER}, _MAY_BE_0)
    return found


def _whole(where: str, values: dict[str, Any], may_be_0: set[str]) -> list[str]:
    found = []
    for key, value in values.items():
        least = 0 if key in may_be_0 else 1
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            wanted = "above 0" if least else "of 0 or more"
            found.append(f"{where}.{key} is {value!r}: a whole number {wanted} is needed")
    return found


def _several(size: Any) -> list[int]:
    return size if isinstance(size, list) else [size]
