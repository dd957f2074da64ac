"""What a vision model of transformers expects of its images, from its preprocessor_config.json."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from PIL import Image

from mmpretrain.problems import UnusableError

_STATISTICS = {"mean": "image_mean", "std": "image_std"}
_RESAMPLES = {Image.Resampling.BICUBIC: {}, Image.Resampling.BILINEAR: {"resample": "bilinear"}}
_WHOLE = 384  # pixels; from here on ConvNeXt's images are squashed instead of cropped


def image_preparation(settings: Mapping[str, Any], size: Sequence[int]) -> dict[str, Any]:
    """``settings`` of an image processor in the keys of this project's entry for images of ``size`` [height, width].

    mean, std, resize and shortest_edge, as far as the settings say them; an edge is scaled where the model's own images
    are of another size.
    """
    found: dict[str, Any] = {ours: settings[key] for ours, key in _STATISTICS.items() if key in settings}
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
    resample = _RESAMPLES.get(settings.get("resample"))
    if not usual or resample is None or None in (height, width):
        raise UnusableError(
            [
                f"{source}: its image processor does not resize (bicubic or bilinear), crop and normalize as CLIP's:"
                f" {settings}"
            ]
        )
    statistics = {"mean": list(settings["image_mean"]), "std": list(settings["image_std"])}
    cut = {"resize": "squash"} if edge is None else {"resize": "crop", "shortest_edge": edge}
    return {"size": [height, width], "channels": 3, **cut, **resample, **statistics}


def _by_share(edge: int, share: float, size: Sequence[int]) -> dict[str, Any]:
    return {"resize": "squash"} if edge >= _WHOLE else _cropped(1 / share, size)


def _cropped(larger: float, size: Sequence[int]) -> dict[str, Any]:
    """Cut out of an edge that is so many times as large."""
    return {"resize": "crop", "shortest_edge": max(math.floor(larger * max(size) + 1e-6), max(size))}
