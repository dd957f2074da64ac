"""Encoders of this project's own architectures: their entries in the model's config, checked and completed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from mmpretrain.assembly.encoder_source import EncoderSource
from mmpretrain.config.architectures import ARCHITECTURES, Architecture, DataSize, Value
from mmpretrain.config.data import ModalityConfig
from mmpretrain.problems import UnusableError, nearest

_UNITS = {
    DataSize.input_size: "features",
    DataSize.steps: "time steps",
    DataSize.input_channels: "channels",
    DataSize.image_size: "pixels",
}
_LAYER = ("channels", "kernel", "stride", "padding", "pool", "pool_stride")
_MAY_BE_0 = {"padding", "pool"}


class OwnEncoder(EncoderSource):
    """A new encoder of one of ``ARCHITECTURES``."""

    def specification(self, tokenizer: Any | None) -> dict[str, Any]:
        """See :class:`EncoderSource`."""
        row = ARCHITECTURES[str(self.encoder.architecture)]
        pool = self.encoder.pool or row.pools[0]
        return {"architecture": self.encoder.architecture, "config": self._config(row), "pool": pool.value}

    def _config(self, row: Architecture) -> dict[str, Any]:
        """Constructor arguments of the architecture."""
        architecture, given = self.encoder.architecture, self.encoder.config
        check_keywords(self.where, given, (*row.sizes, *row.required, *row.optional))
        sizes = {size.value: _of_data(size, self.modality) for size in row.sizes}
        config = {**sizes, **given}
        problems = [
            f"{self.where}.config.{key} is missing: the {architecture} needs it"
            for key in row.required
            if key not in config
        ]
        problems += _values(row, f"{self.where}.config", {k: v for k, v in config.items() if k not in sizes})
        problems += [
            f"{self.where}.config.{size.value} is {config[size]}, but the data has"
            f" {'x'.join(map(str, _several(sizes[size])))} {_UNITS[size]}: leave it out"
            for size in row.sizes
            if config[size] != sizes[size]
        ]
        if problems:
            raise UnusableError(problems)
        return config


def check_keywords(where: str, given: Iterable[str], known: Iterable[str]) -> None:
    """Raises UnusableError with every keyword in ``WHERE.config`` that the architecture does not take."""
    known = [str(key) for key in known]
    unknown = sorted(set(given) - set(known))
    if unknown:
        raise UnusableError(f"{where}.config.{key}: unknown keyword{nearest(key, known)}" for key in unknown)


def _of_data(size: DataSize, modality: ModalityConfig) -> Any:
    match size:
        case DataSize.input_channels:
            return modality.channels
        case DataSize.image_size:
            return list(modality.size)
        case DataSize.input_size:
            return modality.size[-1]
        case DataSize.steps:
            return modality.size[0]


def _values(row: Architecture, where: str, config: Mapping[str, Any]) -> list[str]:
    """Problems of the values that the config gives, one sentence each."""
    takes = {**row.required, **row.optional}
    found: list[str] = []
    for value, check in _CHECKS.items():
        for key in config:
            found += check(f"{where}.{key}", config[key]) if takes[key] is value else []
    if row.divides and not found:
        divisor, dividend, default = row.divides
        whole, part = config.get(dividend), config.get(divisor, default)
        if whole is not None and whole % part:
            found.append(f"{where}.{divisor} is {part}: it must divide {dividend}={whole}")
    return found


def _switch(where: str, value: Any) -> list[str]:
    return [] if isinstance(value, bool) else [f"{where} is {value!r}: true or false is needed"]


def _layers(where: str, layers: Any) -> list[str]:
    if not isinstance(layers, list) or not layers or not all(isinstance(layer, dict) for layer in layers):
        return [f"{where} is {layers!r}: a list of mappings is needed, such as [{{channels: 16}}]"]
    found = []
    for number, layer in enumerate(layers):
        here = f"{where}[{number}]"
        found += [f"{here}.{key}: unknown keyword{nearest(key, _LAYER)}" for key in layer if key not in _LAYER]
        found += [] if "channels" in layer else [f"{here}.channels is missing"]
        for key, value in layer.items():
            if key in _LAYER:
                found += _natural(f"{here}.{key}", value) if key in _MAY_BE_0 else _positive(f"{here}.{key}", value)
    return found


def _positive(where: str, value: Any) -> list[str]:
    return [] if _is_whole(value) and value >= 1 else [f"{where} is {value!r}: a whole number above 0 is needed"]


def _natural(where: str, value: Any) -> list[str]:
    return [] if _is_whole(value) and value >= 0 else [f"{where} is {value!r}: a whole number of 0 or more is needed"]


def _share(where: str, value: Any) -> list[str]:
    fits = isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < 1
    return [] if fits else [f"{where} is {value!r}: a number from 0 to below 1 is needed"]


def _widths(where: str, widths: Any) -> list[str]:
    if not isinstance(widths, list) or not widths:
        return [f"{where} is {widths!r}: a list of whole numbers above 0 is needed, such as [32, 64]"]
    return [problem for number, width in enumerate(widths) for problem in _positive(f"{where}[{number}]", width)]


_CHECKS: dict[Value, Callable[[str, Any], list[str]]] = {
    Value.switch: _switch,
    Value.layers: _layers,
    Value.widths: _widths,
    Value.positive: _positive,
    Value.natural: _natural,
    Value.share: _share,
}


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _several(size: Any) -> list[int]:
    return size if isinstance(size, list) else [size]
