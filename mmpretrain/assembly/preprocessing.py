"""What a vision model of transformers expects of its images, from its preprocessor_config.json."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from PIL import Image

from mmpretrain.problems import UnusableError

# Ours -> the key, and what changes nothing.
_STATISTICS = {"mean": ("image_mean", 0.0), "std": ("image_std", 1.0)}
_RESAMPLES: dict[Any, dict[str, str]] = {
    Image.Resampling.BICUBIC: {},
    Image.Resampling.BILINEAR: {"resample": "bilinear"},
}
# What is done to pixels and has no name here.
_STRANGE = {"do_flip_channel_order": "gives its colors in the order blue, green, red", "rescale_offset": "takes 1 off"}
_WHOLE = 384  # pixels; from here on ConvNeXt's images are squashed instead of cropped


def image_preparation(where: str, settings: Mapping[str, Any], size: Sequence[int], channels: int) -> dict[str, Any]:
    """``settings`` of an image processor in the keys of this project's entry for images of ``size`` [height, width].

    mean, std, resize, resample and shortest_edge, as far as the settings say them; an edge is scaled where the model's
    own images are of another size. where: the encoder's key. Raises UnusableError for what no entry can say.
    """
    if strange := [key for key in _STRANGE if settings.get(key)]:
        raise UnusableError(
            [
                f"{where}: its image processor {_STRANGE[strange[0]]} ({strange[0]}), which is not done here: take the"
                " key out of its preprocessor_config.json if its encoder may learn otherwise, or choose another"
            ]
        )
    found: dict[str, Any] = _statistics(settings, channels)
    if settings.get("do_resize"):
        found |= _RESAMPLES.get(settings.get("resample"), {})
    asked = settings.get("size")
    if not settings.get("do_resize") or asked is None:
        return found
    edge = asked.get("shortest_edge") if isinstance(asked, Mapping) else asked
    if settings.get("crop_pct") and edge is not None:
        return found | _by_share(edge, settings["crop_pct"], size)
    if settings.get("do_center_crop"):
        cropped = settings.get("crop_size")
        height = cropped.get("height") if isinstance(cropped, Mapping) else cropped
        return found | ({} if edge is None or height is None else _cropped(edge / height, size))
    # Only the edge is given, and nothing is cut: the model takes any proportions, and a batch needs one.
    return found | {"resize": "crop" if isinstance(asked, Mapping) and "shortest_edge" in asked else "squash"}


def image_entry(source: str, images: Any) -> dict[str, Any]:
    """What an image processor of transformers does, in the keys of a release's processor, its size among them.

    Raises UnusableError if they cannot say it.
    """
    settings = images.to_dict()
    edge, crop = settings["size"].get("shortest_edge"), settings.get("crop_size") or {}
    height, width = ((crop if settings.get("do_center_crop") else settings["size"]).get(k) for k in ("height", "width"))
    usual = settings.get("do_resize") and settings.get("do_normalize") and settings.get("do_rescale")
    usual = usual and not any(settings.get(key) for key in _STRANGE)
    resample = _RESAMPLES.get(settings.get("resample"))
    if not usual or resample is None or None in (height, width):
        raise UnusableError(
            [
                f"{source}: its image processor does not resize (bicubic or bilinear), crop and normalize as CLIP's:"
                f" {settings}"
            ]
        )
    cut = {"resize": "squash"} if edge is None else {"resize": "crop", "shortest_edge": edge}
    return {"size": [height, width], "channels": 3, **cut, **resample, **_statistics(settings, 3)}


def _statistics(settings: Mapping[str, Any], channels: int) -> dict[str, list[float]]:
    """What is taken from pixels of 0 to 1, and what they are divided by, where the settings say it."""
    rescaled = settings.get("do_rescale", True)
    scale = 255 * (settings.get("rescale_factor") or 1 / 255) if rescaled else 255.0  # of pixels of 0 to 1
    found = {}
    for ours, (key, nothing) in _STATISTICS.items():
        value = nothing if settings.get("do_normalize") is False else settings.get(key)
        if value is not None:
            values = [value] * channels if isinstance(value, int | float) else value
            found[ours] = [float(one) / scale for one in values]
    return found


def _by_share(edge: int, share: float, size: Sequence[int]) -> dict[str, Any]:
    return {"resize": "squash"} if edge >= _WHOLE else _cropped(1 / share, size)


def _cropped(larger: float, size: Sequence[int]) -> dict[str, Any]:
    """Cut out of an edge that is so many times as large."""
    return {"resize": "crop", "shortest_edge": max(math.floor(larger * max(size) + 1e-6), max(size))}
