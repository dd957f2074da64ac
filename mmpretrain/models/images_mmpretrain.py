"""Images as a viewer shows them: the same code in training and in a release.

shown() turns an image upright and gives it a mode of 8 bits, flat() puts it on its background, pixels_of() makes an
array of that, which fitted() (resizing_mmpretrain.py) brings to a size. docs/data.md has a table of what happens to
which image.
"""

from __future__ import annotations

import re
import warnings
from typing import Any

import numpy as np

try:
    from PIL import Image
except ImportError:  # Vectors and texts work without it.
    Image = None  # type: ignore[assignment]

BACKGROUND = "white"
WAYS = ("crop", "pad", "squash")
BICUBIC = "bicubic"
RESAMPLES = (BICUBIC, "bilinear")
COLORS = {"white": (255, 255, 255), "black": (0, 0, 0), "gray": (128, 128, 128)}
ORIENTATION = 0x0112  # EXIF

# Where Pillow keeps EXIF, and XMP, which may hold its orientation. TIFFs come upright.
_EXIF = ("exif", "Raw profile type exif", "xmp", "XML:com.adobe.xmp")
# EXIF's number -> what turns the stored image into the shown one, as a name of Image.Transpose.
_TURNS = {
    2: "FLIP_LEFT_RIGHT",
    3: "ROTATE_180",
    4: "FLIP_TOP_BOTTOM",
    5: "TRANSPOSE",
    6: "ROTATE_270",
    7: "TRANSVERSE",
    8: "ROTATE_90",
}
_DEEP = ("I", "I;16", "I;16L", "I;16B", "I;16N")
_COLORED = ("RGB", "RGBA", "RGBX", "RGBa", "CMYK", "YCbCr", "HSV", "P", "PA")
_PLAIN = ("L", "RGB")
_GREY = ("1", "L", "LA", "La")
_MOST = 65535  # of 16 bits
_DEEPEST, _BITS, _PHOTOMETRIC = 16, 258, 262  # bits; tags of TIFF


def shown(image: Any) -> Any:
    """A PIL image upright and in 8 bits: mode L, RGB, or with transparency LA or RGBA. What is so already stays.

    Orientation in EXIF is applied. Grey of 16 bits is scaled by its range: 65535 is white, whatever the image's own
    brightest value is. Raises ValueError, which names the mode, for what has no range to be scaled by (floats, 32 bits)
    and for color spaces that are not converted.
    """
    image.load()
    if not all(image.size):
        raise ValueError("an image without pixels")
    way = turn(image)
    image = _eight_bits(image)
    if way is not None:
        image = image.transpose(way)
        image.info = {}  # Where EXIF stands: it says no longer how the image is turned.
    return image


def flat(image: Any, channels: int, background: str = BACKGROUND) -> Any:
    """A PIL image as shown, of mode L (channels 1) or RGB (3): what is transparent lies on ``background``.

    An image that is so already is returned itself. background: ``white``, ``black``, ``gray`` or ``#rrggbb``. Raises
    ValueError as :func:`shown` and :func:`color`.
    """
    image = shown(image)
    mode = "L" if channels == 1 else "RGB"
    if image.mode in ("LA", "RGBA"):
        ground = Image.new("RGBA", image.size, (*color(background), 255))
        image = Image.alpha_composite(ground, image.convert("RGBA"))
    return image if image.mode == mode else image.convert(mode)


def pixels_of(image: Any, channels: int, background: str = BACKGROUND) -> np.ndarray:
    """A PIL image as uint8 [height, width, channels]: see :func:`flat`."""
    pixels = np.asarray(flat(image, channels, background))
    return pixels[:, :, None] if channels == 1 else pixels


def check_entry(name: str, entry: dict[str, Any]) -> None:
    """Raises ValueError if what the processor's entry of modality ``name`` says of images cannot be carried out."""
    how, edge = entry.get("resize"), entry.get("shortest_edge")
    if how not in (None, *WAYS):
        raise ValueError(f"modality {name!r}: resize is {how!r}, this version knows {', '.join(WAYS)}")
    if (resample := entry.get("resample", BICUBIC)) not in RESAMPLES:
        raise ValueError(f"modality {name!r}: resample is {resample!r}, this version knows {', '.join(RESAMPLES)}")
    if edge is not None and how not in (None, "crop"):
        raise ValueError(f"modality {name!r}: shortest_edge is {edge}, but resize={how} cuts nothing out")
    if edge is not None and edge < max(entry["size"]):
        raise ValueError(f"modality {name!r}: shortest_edge is {edge}, and {entry['size']} is cut out of it")
    try:
        color(entry.get("background", BACKGROUND))
    except ValueError as error:
        raise ValueError(f"modality {name!r}: background {error}") from error


def color(name: str) -> tuple[int, int, int]:
    """``white``, ``black``, ``gray`` or ``#rrggbb`` as red, green and blue. Raises ValueError for anything else."""
    if re.fullmatch("#[0-9a-fA-F]{6}", name):
        return int(name[1:3], 16), int(name[3:5], 16), int(name[5:], 16)
    if name not in COLORS:
        raise ValueError(f"{name!r} is no color: use {', '.join(COLORS)} or #rrggbb")
    return COLORS[name]


def turn(image: Any) -> Any | None:
    """What brings the image upright; None if it is, or if its EXIF cannot be read, which viewers pass over."""
    if not any(key in image.info for key in _EXIF):
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of damaged EXIF
            orientation = image.getexif().get(ORIENTATION)
    except Exception:  # Damaged EXIF raises whatever its parser raises.
        return None
    # A list, for example, cannot be looked up.
    return Image.Transpose[_TURNS[orientation]] if isinstance(orientation, int) and orientation in _TURNS else None


def shade(name: str, channels: int) -> tuple[int, ...]:
    """A color (see :func:`color`) as it lies in a picture of 1 (grey) or 3 channels."""
    found = Image.new("RGB", (1, 1), color(name))
    return tuple(np.asarray(found if channels == 3 else found.convert("L")).flatten().tolist())


def _eight_bits(image: Any) -> Any:
    if image.mode in _PLAIN and "transparency" not in image.info:
        return image
    if image.mode in _DEEP:
        return _scaled(image)
    if image.mode in _GREY:
        return image.convert("LA" if image.has_transparency_data else "L")
    if image.mode in _COLORED:
        return _with_key(image).convert("RGBA" if image.has_transparency_data else "RGB")
    raise ValueError(
        f"an image of mode {image.mode} ({_WHY.get(image.mode, 'not converted')}): save it with 8 bits per channel, or"
        " as grey of 16 bits"
    )


_WHY = {"F": "floats, which have no fixed range", "LAB": "a color space that is not converted"}


def _scaled(image: Any) -> Any:
    """Grey of 16 bits as L, or as LA if one value of it stands for transparency."""
    values, tags = np.asarray(image), getattr(image, "tag_v2", {})
    low, high = int(values.min()), int(values.max())
    if low < 0 or high > _MOST or max(np.atleast_1d(tags.get(_BITS, 0))) > _DEEPEST:
        raise ValueError(
            f"an image of mode {image.mode} with values from {low} to {high}: 32 bits have no range to be scaled by,"
            " save it as grey of 8 or 16 bits"
        )
    if tags.get(_PHOTOMETRIC) == 0:  # a TIFF whose 0 is white, which Pillow turns for 8 bits
        values = _MOST - values.astype(np.int64)
    table = ((np.arange(_MOST + 1) * 255 + _MOST // 2) // _MOST).astype(np.uint8)
    grey = Image.fromarray(table[values])
    key = image.info.get("transparency")
    if isinstance(key, int):
        grey.putalpha(Image.fromarray(np.where(values == key, 0, 255).astype(np.uint8)))
    return grey


def _with_key(image: Any) -> Any:
    """The image; a color of 16 bits that stands for transparency becomes one of 8, as Pillow's pixels are."""
    key = image.info.get("transparency")
    if image.mode == "RGB" and isinstance(key, tuple) and max(key) > 255:
        image = image.copy()
        image.info["transparency"] = tuple(value >> 8 for value in key)
    return image
