"""Bytes become objects only here, through the table ``DECODERS``: extension -> decoder. No pickle, no code.

Every decoder checks sizes before it allocates: encoded bytes first, then what the header promises. Anything unfit
raises :class:`SampleError`, so that the stream can replace the sample. No torch here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from mmpretrain.config.implementation import implementation
from mmpretrain.config.kind import Kind
from mmpretrain.words import shortened

# A sound is {"array": float32 [n], "sampling_rate": hertz}.
Raw = Image.Image | str | np.ndarray | dict[str, Any]

MAX_ENCODED_BYTES = 64 << 20
MAX_LABEL_DIGITS = 18


class SampleError(Exception):
    """A sample that cannot be used; the message names the member and what is wrong with it."""


class MissingExtraError(ValueError):
    """What reads these members is not installed; the message names the extra."""


def decode(extension: str, data: bytes, kind: Kind, reader: Callable[[bytes], Any] | None = None) -> Any:
    """The object that a member holds: an image of mode L, LA, RGB or RGBA, a text, a float32 array, or a sound.

    extension: ``MODALITY.EXT`` as in the tar; kind: what the config says the modality is; reader: makes the object in
    place of the kind's decoder, whose checks stay.
    Raises SampleError if no decoder is known for EXT, if it decodes another kind, or if the bytes are unfit, and
    MissingExtraError where the decoder is not installed.
    """
    suffix = extension.rpartition(".")[2].lower()
    if suffix not in DECODERS:
        raise SampleError(f"{extension}: no decoder for .{suffix}; there are decoders for {_known()}")
    decoder = DECODERS[suffix]
    if kind not in decoder.kinds:
        raise SampleError(f"{extension}: holds a {_either(decoder)}, but the config says {kind.value}")
    if len(data) > MAX_ENCODED_BYTES:
        raise SampleError(f"{extension}: has {len(data)} bytes, more than {MAX_ENCODED_BYTES}")
    decoder.load()
    try:
        return decoder.decode(data) if reader is None else reader(data)
    except SampleError as error:
        raise SampleError(f"{extension}: {error}") from None
    except Exception as error:  # hostile bytes bring libraries to raise nearly anything
        raise SampleError(f"{extension}: {type(error).__name__}: {_printable(error)}") from None


def _printable(error: Exception) -> str:
    """A library's message on one line, without what would steer a terminal: it may quote the bytes."""
    return shortened("".join(c if c.isprintable() else " " for c in str(error)))


def _known() -> str:
    return ", ".join(f".{suffix} ({_either(decoder)})" for suffix, decoder in sorted(DECODERS.items()))


def _either(decoder: Decoder) -> str:
    return " or ".join(kind.value for kind in decoder.kinds)


@dataclass(frozen=True)
class Decoder:
    """What members of one extension may hold, and what decodes them. name: of the function."""

    kinds: tuple[Kind, ...]
    name: str

    def load(self) -> None:
        """Import it: what it needs and is not installed is no fault of a sample. Raises MissingExtraError."""
        try:
            implementation(self.name)
        except ImportError as error:
            raise MissingExtraError(str(error)) from error

    def decode(self, data: bytes) -> Raw:
        """The object. Raises SampleError, and what libraries raise."""
        found: Raw = implementation(self.name)(data)
        return found


def _decoders() -> dict[str, Decoder]:
    """Extension -> decoder, as the kinds' rows say; kinds that share an extension share its decoder."""
    found: dict[str, Decoder] = {}
    for kind in Kind:
        for suffix in kind.row.suffixes:
            kinds = found[suffix].kinds if suffix in found else ()
            name = kind.row.row_decoders.get(suffix, kind.row.decoder)
            assert not kinds or found[suffix].name == name, f".{suffix} has two decoders"
            found[suffix] = Decoder((*kinds, kind), name)
    return found


DECODERS = _decoders()
