"""What stands in the HTML of a picture."""

from __future__ import annotations

import base64
import io
import re

from markupsafe import Markup
from PIL import Image


def embedded(markup: Markup) -> Image.Image:
    """The image in a data URI."""
    found = re.search(r"base64,([^\"]+)", str(markup))
    assert found
    return Image.open(io.BytesIO(base64.b64decode(found[1])))
