"""The image processor that ships: the pictures of one modality alone, with the pixels of training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from transformers import BatchFeature
from transformers.image_processing_utils import BaseImageProcessor

from .batch_mmpretrain import check_form
from .images_mmpretrain import check_entry
from .inputs_mmpretrain import encoded_tensors, finished_tensors

# What transformers writes into such a file, or hands through.
_SERVICE = ("image_processor_type", "processor_class", "auto_map", "feature_extractor_type")

_SAME = ("channels", "resize", "resample", "shortest_edge", "background", "optional")  # as the entry calls them


class MMPretrainImageProcessor(BaseImageProcessor):
    """``image_processor(images, return_tensors="pt")`` -> ``pixel_values``, the same as the whole processor's.

    modality: the name that errors say. size: ``{"height": h, "width": w}``. channels: 1 (grey) or 3. image_mean,
    image_std: per channel, of pixels from 0 to 1; None: 0.5. resize, resample, shortest_edge, background: see
    :func:`fitted`.
    optional: whether images may be None; ``present`` then says which were there.

    Raises ValueError for settings that it does not have: transformers' own, as ``do_resize``, would change nothing.
    """

    _auto_class = "AutoImageProcessor"
    model_input_names: ClassVar[list[str]] = ["pixel_values"]

    # Any: the settings come from a file.
    def __init__(
        self,
        modality: str = "image",
        size: Any = None,
        channels: int = 3,
        image_mean: list[float] | None = None,
        image_std: list[float] | None = None,
        resize: str | None = None,
        resample: str | None = None,
        shortest_edge: int | None = None,
        background: str | None = None,
        optional: bool = False,
        **kwargs: Any,
    ) -> None:
        unknown = [key for key in kwargs if key not in _SERVICE and not key.startswith("_")]
        if unknown:
            raise ValueError(f"{type(self).__name__} has no setting {', '.join(unknown)}")
        super().__init__()
        if not isinstance(size, Mapping) or not {"height", "width"} <= set(size):
            raise ValueError(f'size is {size!r}: {{"height": ..., "width": ...}} is needed')
        self.modality, self.size, self.channels = modality, dict(size), channels
        self.image_mean, self.image_std = image_mean, image_std
        self.resize, self.resample = resize, resample
        self.shortest_edge, self.background, self.optional = shortest_edge, background, optional
        check_entry(modality, self.entry)

    @classmethod
    def of(cls, name: str, entry: Mapping[str, Any]) -> MMPretrainImageProcessor:
        """The one of an image among the processor's modalities."""
        height, width = entry["size"]
        mean, std = entry.get("mean"), entry.get("std")
        same = {key: entry[key] for key in _SAME if key in entry}
        return cls(name, {"height": height, "width": width}, image_mean=mean, image_std=std, **same)

    @property
    def entry(self) -> dict[str, Any]:
        """What the processor's ``modalities`` say of this image."""
        entry = {
            "kind": "image",
            "size": [self.size["height"], self.size["width"]],
            "channels": self.channels,
            "mean": self.image_mean,
            "std": self.image_std,
            "resize": self.resize,
            "resample": self.resample,
            "shortest_edge": self.shortest_edge,
            "background": self.background,
        }
        return {key: value for key, value in entry.items() if value is not None} | {"optional": self.optional}

    # Any: images come in many forms, and so do other libraries' keywords.
    def preprocess(self, images: Any, return_tensors: Any = None, **kwargs: Any) -> BatchFeature:
        """Images (one or a list; see :func:`as_image`) -> ``pixel_values`` float32 [b, channels, height, width].

        return_tensors: ``"pt"`` (None, too) or ``"np"``. Raises ValueError for other keywords, and for what cannot be
        read as an image.
        """
        if kwargs:
            raise ValueError(f"{type(self).__name__} has no keyword {', '.join(kwargs)}: it does what training did")
        check_form(return_tensors)
        entry = self.entry
        tensors = finished_tensors(encoded_tensors(self.modality, images, entry, None), entry)
        as_numpy = getattr(return_tensors, "value", return_tensors) == "np"
        return BatchFeature({key: tensor.numpy() if as_numpy else tensor for key, tensor in tensors.items()})
