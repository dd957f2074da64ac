"""Samples in the forms that users have them: pictures of arrays, tensors, files and addresses; sounds of files."""

from __future__ import annotations

import http.client
import io
import os
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .images_mmpretrain import Image

try:
    import soundfile
except (ImportError, OSError):  # OSError: the package is there and its library is not. Only paths of sounds need it.
    soundfile = None

# Those that every build of Pillow reads by itself: no other program is started, as for EPS.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
MOST_PIXELS = 50_000_000
MOST_BYTES = 100_000_000  # of a file
MOST_VALUES = 200_000_000  # of a sound, all channels
TIMEOUT_S = 60
_CHANNELS = (1, 3)


def as_image(item: Any) -> Any:
    """A PIL image of a PIL image (itself), an array or tensor, the path of a file, or an address (http, https).

    Arrays: [h, w], [h, w, channels] or [channels, h, w] with 1 or 3 channels (behind the pixels also 4: with
    transparency), uint8, or floats from 0 to 1; [h, w] also uint16. Raises ValueError for anything else, and for what
    cannot be read.
    """
    if isinstance(item, Image.Image):
        return item
    if isinstance(item, (str, os.PathLike)):
        return _opened(os.fspath(item))
    if isinstance(item, (np.ndarray, Tensor)):
        return Image.fromarray(_levels(_channels_last(as_array(item))))
    raise ValueError(f"a {type(item).__name__}: PIL images are needed, arrays, tensors, or paths of files")


def as_array(item: Any) -> np.ndarray:
    """A tensor on any device, with or without gradients, or whatever numpy takes. Raises what numpy does."""
    if isinstance(item, Tensor):
        item = item.detach().cpu()
        return (item.float() if item.dtype == torch.bfloat16 else item).numpy()
    return np.asarray(item)


def _channels_last(array: np.ndarray) -> np.ndarray:
    """[h, w] or [h, w, channels > 1]."""
    if array.ndim == 3:
        first, last = array.shape[0] in _CHANNELS, array.shape[2] in _CHANNELS
        if first and last:
            raise ValueError(f"an array of shape {list(array.shape)}, whose channels may stand first or last")
        if first:
            array = array.transpose(1, 2, 0)
        elif not last and array.shape[2] != 4:
            raise ValueError(f"an array of shape {list(array.shape)}: 1 or 3 channels are needed")
        array = array[:, :, 0] if array.shape[2] == 1 else array
    if array.ndim not in (2, 3):
        raise ValueError(
            f"an array of shape {list(array.shape)}: an image is [h, w], [h, w, channels] or [channels, h, w]"
        )
    if not array.size:
        raise ValueError("an image without pixels")
    return array


def _levels(array: np.ndarray) -> np.ndarray:
    """uint8, or uint16 of grey, as Pillow takes it."""
    if array.dtype.kind == "f":
        low, high = float(array.min()), float(array.max())
        if not 0 <= low <= high <= 1:  # not a number is in no order
            raise ValueError(
                f"an array of floats from {low:g} to {high:g}: floats are needed from 0 to 1 and not yet normalized, or"
                " uint8"
            )
        return np.ascontiguousarray(np.round(array * 255).astype(np.uint8))
    if array.dtype == np.uint8 or (array.dtype == np.uint16 and array.ndim == 2):
        return np.ascontiguousarray(array)
    raise ValueError(f"an array of {array.dtype}: uint8 is needed, or floats from 0 to 1")


def heard(name: str, path: str, rate: Any) -> tuple[np.ndarray, int]:
    """A file of sound as float32 [n], the mean of its channels, and its rate in hertz.

    rate: that was said beside it, or None. Raises ValueError for what cannot be read, or has another rate.
    """
    if soundfile is None:
        raise ValueError(
            f"modality {name!r} has the path of a file, and soundfile is not installed: pip install soundfile"
        )
    try:
        with soundfile.SoundFile(path) as file:
            if file.frames * file.channels > MOST_VALUES:
                raise ValueError(f"more than {MOST_VALUES} values")
            values, found = file.read(dtype="float32", always_2d=True), int(file.samplerate)
    # Damaged files raise whatever their parser raises.
    except Exception as error:
        raise ValueError(f"modality {name!r} has {path[:200]!r}, which cannot be read as a sound ({error})") from None
    if rate not in (None, found):
        raise ValueError(f"modality {name!r}: {path!r} has {found} Hz, and sampling_rate says {rate}: leave it out")
    return values[:, 0] if values.shape[1] == 1 else values.mean(axis=1, dtype=np.float32), found


def _opened(place: str) -> Any:
    if place.lower().startswith(("http://", "https://")):
        return _image(io.BytesIO(_fetched(place)), place)
    path = Path(place)
    if not path.is_file():
        raise ValueError(f"{place[:200]!r}, and there is no such file")
    if path.stat().st_size > MOST_BYTES:
        raise ValueError(f"{place!r} of more than {MOST_BYTES} bytes")
    return _image(path, place)


def _image(source: Any, place: str) -> Any:
    try:
        image = Image.open(source, formats=FORMATS)
        if image.width * image.height > MOST_PIXELS:
            raise ValueError(f"{image.width} x {image.height} pixels are more than {MOST_PIXELS}")
        image.load()
    # Damaged files raise whatever their parser raises.
    except Exception as error:
        raise ValueError(f"{place!r}, which cannot be read as an image ({error})") from None
    return image


def _fetched(address: str) -> bytes:
    """What lies at an address. Unlike transformers' load_image it is not made RGB: what is transparent stays so."""
    request = urllib.request.Request(address, headers={"User-Agent": "transformers"})
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:
            content: bytes = answer.read(MOST_BYTES + 1)
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise ValueError(f"{address!r}, which cannot be fetched ({error})") from None
    if len(content) > MOST_BYTES:
        raise ValueError(f"{address!r} of more than {MOST_BYTES} bytes")
    return content
