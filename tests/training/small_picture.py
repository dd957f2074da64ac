"""A picture as trackers get it."""

from __future__ import annotations

from io import BytesIO

from PIL import Image


def png() -> bytes:
    """A small picture."""
    stream = BytesIO()
    Image.new("RGB", (5, 3), "red").save(stream, "png")
    return stream.getvalue()
