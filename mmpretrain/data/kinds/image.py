"""Images: JPEG, PNG and WebP to Pillow's."""

from __future__ import annotations

import io
import warnings

from PIL import Image

from mmpretrain.data.decode import SampleError

MAX_PIXELS = 50_000_000
FORMATS = ("JPEG", "PNG", "WEBP")


def decode(data: bytes) -> Image.Image:
    """An RGB, grey or palette image. Raises SampleError or what Pillow raises; the header is read first."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise SampleError(f"{width} x {height} pixels are more than {MAX_PIXELS}")
    image.load()
    return image
