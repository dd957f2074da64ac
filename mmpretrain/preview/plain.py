"""How a kind is shown that says nothing of its own: arrays, sounds and tensors by their shapes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from markupsafe import Markup, escape
from PIL import Image
from torch import Tensor

from mmpretrain.config.data import ModalityConfig
from mmpretrain.preview.drawing import heat_map, picture, player, spectrogram, waveform

LONG = 512  # numbers in a row; what is longer is drawn as a waveform
FIRST = 6  # numbers that are also written
MANY = 4  # dimensions of which the first is cut down to one


@dataclass(frozen=True)
class Measured:
    """What a histogram or a table counts of one sample. numbers: quantity -> value. words: property -> its value."""

    numbers: dict[str, float] = field(default_factory=dict)
    words: dict[str, str] = field(default_factory=dict)


class KindPreview(Protocol):
    """What the row of a kind names (``preview``): made for one modality."""

    limits: dict[str, float]
    """Quantity of :class:`Measured` -> the most that reaches the model; what is above is cut."""

    def __init__(
        self, name: str, modality: ModalityConfig, entry: Mapping[str, Any] | None, tokenizer: Any | None
    ) -> None:
        """name: of the modality. entry, tokenizer: those of the processor, None where it has none."""

    def decoded(self, value: Any) -> Markup:
        """A sample as the decoder gives it."""

    def seen(self, tensors: Mapping[str, Tensor], value: Any) -> Markup:
        """What the model gets of a sample: its tensors without the dimension of the batch. value: as decoded."""

    def measured(self, value: Any) -> Measured:
        """Numbers of a sample as decoded."""


class PlainPreview:
    """Vectors, sequences, sounds, and whatever has no class of its own."""

    def __init__(
        self, name: str, modality: ModalityConfig, entry: Mapping[str, Any] | None, tokenizer: Any | None
    ) -> None:
        self.name = name
        row = modality.kind.row
        self.limits = {"length": float(modality.size[0])} if row.tokens and row.size and modality.size else {}
        # Of sounds.
        seconds = modality.seconds or (entry or {}).get("seconds")
        self.limits |= {} if seconds is None else {"seconds": float(seconds)}

    def decoded(self, value: Any) -> Markup:
        """See :class:`KindPreview`."""
        if (sound := _sound(value)) is not None:
            wave, rate = sound
            told = f"{len(wave) / rate:.2f} s at {rate} Hz"
            return waveform(wave, told) + spectrogram(wave, told) + player(wave, rate) + _note(told)
        if isinstance(value, Image.Image):
            return picture(value, self.name)
        if isinstance(value, np.ndarray):
            return drawn(value, self.name)
        return Markup('<p class="text">{}</p>').format(value)

    def seen(self, tensors: Mapping[str, Tensor], value: Any) -> Markup:
        """See :class:`KindPreview`."""
        found = Markup("")
        for keyword, tensor in tensors.items():
            array = tensor.detach().cpu().numpy()
            if array.ndim == 0:
                found += _note(f"{keyword}: {array.item()}")
            elif keyword.endswith("mask"):
                found += _note(f"{keyword}: {int(array.sum())} of {array.size} count")
            else:
                found += drawn(array, f"{self.name}: {keyword}")
        return found

    def measured(self, value: Any) -> Measured:
        """See :class:`KindPreview`."""
        if (sound := _sound(value)) is not None:
            return Measured({"seconds": len(sound[0]) / sound[1]}, {"sampling rate": f"{sound[1]} Hz"})
        if not isinstance(value, np.ndarray) or not value.size:
            return Measured()
        numbers = {"smallest value": float(value.min()), "largest value": float(value.max())}
        if value.ndim > 1:
            numbers = {"length": float(len(value)), **numbers}
        return Measured(numbers, {"shape": " x ".join(map(str, value.shape[1:] if value.ndim > 1 else value.shape))})


def drawn(array: np.ndarray, says: str) -> Markup:
    """An array of any shape as a picture with its shape and range: a long row as a waveform, all else in colors."""
    shown = array
    while shown.ndim > 2:  # Of several channels, the first; of a stack, too.
        shown = shown[0]
    told = f"[{', '.join(map(str, array.shape))}]"
    if not array.size:
        return _note(f"{told}, empty")
    told += f" from {array.min():.4g} to {array.max():.4g}"
    if array.ndim == 1:
        told += f": {', '.join(f'{value:.3g}' for value in array[:FIRST])}{', …' if len(array) > FIRST else ''}"
    is_long = shown.ndim == 1 and len(shown) > LONG
    return (waveform(shown, says) if is_long else heat_map(shown, says)) + _note(told)


def _sound(value: Any) -> tuple[np.ndarray, int] | None:
    """Mono samples and their rate, of ``{"array", "sampling_rate"}`` as ``datasets`` has it; None for other things."""
    if not isinstance(value, Mapping) or not {"array", "sampling_rate"} <= set(value):
        return None
    array = np.asarray(value["array"], dtype=np.float64)
    return (array if array.ndim == 1 else array.mean(axis=-1)), int(value["sampling_rate"])


def _note(text: str) -> Markup:
    return Markup('<p class="note">{}</p>').format(escape(text))
