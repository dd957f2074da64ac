"""The pictures of a batch, from their members' bytes straight into its array: decoded, cut, and brought to their size.

Only where a processor has halves (:class:`Halves`); what else reads pictures gets Pillow's images (data/decode.py).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol, runtime_checkable

import numpy as np

from mmpretrain.config.augment import AugmentConfig
from mmpretrain.config.data import Decoding, ModalityConfig, Resize
from mmpretrain.config.root import Config
from mmpretrain.data.augment.boxes import Box, BoxDraws
from mmpretrain.data.batch import Inputs
from mmpretrain.data.kinds.image import check_size, decode
from mmpretrain.data.kinds.jpeg import FACTORS, JpegHeader, jpeg_header, jpeg_pixels
from mmpretrain.models.images_mmpretrain import BACKGROUND, pixels_of
from mmpretrain.models.resizing_mmpretrain import Pictures, fitted

# How many times as large as needed a picture is at least after a scaled decoding. At 1, values differ from those of the
# whole decoding by 1 of 255 in the mean, at 1.5 by 0.5, at 2 by 0.35; at 2, no photo of 1024 pixels would gain.
SPARE = 1.5


@runtime_checkable
class Halves(Protocol):
    """A processor in two halves: what loader processes do, and what is done where the batch lies afterwards."""

    modalities: dict[str, dict[str, Any]]

    def encoded(self, **samples: Any) -> Inputs:
        """Modality -> tensors, pictures as uint8."""

    def finished(self, inputs: Inputs) -> Inputs:
        """What encoders take."""


@dataclass(frozen=True)
class Training:
    """What is done to pictures when they are read for training alone. crops: modality -> what is cut out of it; seed:
    of the draws."""

    seed: int
    crops: Mapping[str, AugmentConfig] = field(default_factory=dict)

    @classmethod
    def of(cls, config: Config, processor: Halves) -> Training:
        """As a run's config says, whose processor this is. Pictures are cut where they are read unless the device needs
        them whole: for the views of a method, for a ``load_size``, or with the borders that they are padded by."""
        found = {
            name: modality.train
            for name, modality in config.data.modalities.items()
            if modality.kind.row.resized and modality.train is not None and modality.train.crop is not None
            if modality.load_size is None and not config.method.augments
            if processor.modalities[name].get("resize") != Resize.pad.value
        }
        return cls(config.seed, found)


class PictureReader:
    """Reads one modality's pictures. entry: of its processor. larger: of what augmentations start from, None for
    nothing."""

    def __init__(
        self, name: str, entry: dict[str, Any], larger: dict[str, Any] | None, modality: ModalityConfig
    ) -> None:
        self.name, self._entry, self._larger = name, entry, larger
        entries = [entry] + ([] if larger is None else [larger])
        edges = [each.get("shortest_edge") or 0 for each in entries]
        self._needed = [max(*edges, *(each["size"][side] for each in entries)) for side in (0, 1)]  # height, width
        self._scaled = modality.decoding is Decoding.scaled
        # The whole of a picture in other proportions: what ``train.crop`` cuts out of it is drawn in those.
        self._squashed = entry.get("resize") == Resize.squash.value

    def rows(self, count: int) -> tuple[np.ndarray, ...]:
        """Empty arrays for so many pictures: uint8 [count, height, width, channels], of each entry."""
        entries = [self._entry] + ([] if self._larger is None else [self._larger])
        return tuple(np.empty((count, *entry["size"], entry["channels"]), np.uint8) for entry in entries)

    def read(
        self,
        data: bytes,
        rows: Sequence[np.ndarray],
        box: Callable[[int, int, float], Box | None],
        training: bool = False,
    ) -> None:
        """One picture into its row of each array. box: height, width and proportions -> what is cut out of it, None
        for nothing. training: whether it may be shrunk while it is decoded. Raises SampleError, and what Pillow
        raises."""
        pixels, whole = self._decoded(data, box, training and self._scaled)
        if not whole:
            fitted(pixels, self._entry | {"resize": "squash"}, rows[0])
            return
        fitted(pixels, self._entry, rows[0])
        if self._larger is not None:
            fitted(pixels, self._larger, rows[1])

    def _decoded(
        self, data: bytes, box: Callable[[int, int, float], Box | None], shrink: bool
    ) -> tuple[np.ndarray, bool]:
        """uint8 [h, w, channels], and whether that is the whole picture."""
        channels = self._entry["channels"]
        if (header := jpeg_header(data)) is not None:
            check_size(header.width, header.height)
            cut = box(header.height, header.width, self._proportions(header.height, header.width))
            factor = 1 if not shrink else self._factor_of_whole(header) if cut is None else self._factor(cut)
            if (pixels := jpeg_pixels(data, header, channels, factor)) is not None:
                return (pixels, True) if cut is None else (_cut(pixels, cut.within(factor)), False)
        image = decode(data)
        cut = box(image.height, image.width, self._proportions(image.height, image.width))
        if cut is not None:
            image = image.crop((cut.left, cut.top, cut.left + cut.width, cut.top + cut.height))
        return pixels_of(image, channels, self._entry.get("background", BACKGROUND)), cut is None

    def _proportions(self, height: int, width: int) -> float:
        if self._squashed:
            height, width = self._entry["size"]
        return width / height

    def _factor_of_whole(self, header: JpegHeader) -> int:
        """The same where nothing is cut out: only without a rest, so that what is shown of it stays in its place."""
        sides, needed = (header.height, header.width), self._needed
        fits = (
            f for f in FACTORS if all(s % f == 0 and s >= SPARE * f * n for s, n in zip(sides, needed, strict=True))
        )
        return next(fits, 1)

    def _factor(self, cut: Box) -> int:
        """By how much the picture may be shrunk while it is decoded, so that enough of the box is left."""
        height, width = self._entry["size"]
        fits = (f for f in FACTORS if cut.height // f >= SPARE * height and cut.width // f >= SPARE * width)
        return next(fits, 1)


class PictureRows:
    """The pictures of one modality in one batch of at most ``count``. boxes: None where nothing is cut out. training:
    whether the batch is one of training."""

    def __init__(self, reader: PictureReader, count: int, boxes: BoxDraws | None, training: bool) -> None:
        self._reader, self._boxes, self._arrays = reader, boxes, reader.rows(count)
        self._training = training

    def read(self, row: int, place: int, data: bytes) -> bool:
        """Put a picture into this row of the arrays; True. place: of the sample among the batch's positions."""
        box = _no_box if self._boxes is None else partial(self._boxes.box, place)
        self._reader.read(data, [array[row] for array in self._arrays], box, self._training)
        return True

    def pictures(self, present: Sequence[bool]) -> tuple[Pictures, ...]:
        """Those of the first rows, for each array. present: whether each of them has one."""
        held, count = np.array(present, dtype=bool), len(present)
        for array in self._arrays:
            array[:count][~held] = 0
        return tuple(Pictures(array[:count], held) for array in self._arrays)


def picture_readers(
    modalities: Mapping[str, ModalityConfig], processor: object, sources: object
) -> dict[str, PictureReader]:
    """Modality -> reader, of the pictures that ``processor`` takes as arrays; none where it has no halves."""
    if not isinstance(processor, Halves):
        return {}
    larger = sources.modalities if isinstance(sources, Halves) else {}
    return {
        name: PictureReader(name, processor.modalities[name], larger.get(name), modality)
        for name, modality in modalities.items()
        if modality.kind.row.resized and name in processor.modalities
    }


def _no_box(height: int, width: int, proportions: float) -> None:
    return None


def _cut(pixels: np.ndarray, box: Box) -> np.ndarray:
    return pixels[box.top : box.top + box.height, box.left : box.left + box.width]
