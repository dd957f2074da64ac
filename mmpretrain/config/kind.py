"""The kinds of inputs, one row each (no torch here).

What a kind's bytes, tensors and augmentations are is code, in files of its own that the row names; everybody else asks
the row instead of the kind.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class Kind(StrEnum):
    """What the bytes of a modality are."""

    image = "image"
    """Pictures of one or three channels."""

    text = "text"
    """Strings, which a tokenizer turns into tokens."""

    vector = "vector"
    """A fixed number of features."""

    sequence = "sequence"
    """A list of vectors, one per time step."""

    audio = "audio"
    """Sounds: waveforms of any sampling rate, which a feature extractor turns into tensors."""

    @property
    def row(self) -> KindRow:
        """What is known of the kind."""
        return KINDS[self]


class Drawing(StrEnum):
    """How a sample is shown in a picture: as an image, as its words, as the spectrogram of a sound, or not at all."""

    picture = "picture"
    words = "words"
    nothing = "nothing"
    spectrogram = "spectrogram"


@dataclass(frozen=True)
class KindRow:
    """What tells a kind of input from the others."""

    size: tuple[str, ...]
    """What the numbers of ``data.modalities.NAME.size`` are."""
    described_by: tuple[str, ...]
    """The keys of such an entry that describe its inputs; they go into the processor."""
    suffixes: tuple[str, ...]
    """Of the members that hold it."""
    decoder: str
    """Bytes -> object (data/decode.py)."""
    augmentation: str
    """Its class (data/augment/augmenter.py)."""
    operations: tuple[str, ...]
    """What the augmentation can do; a new name comes last in the last row (see below)."""
    default_views: Mapping[str, Any]
    """Augmentation of views unless the config says otherwise."""
    tensors: tuple[str, ...]
    """Keywords of the tensor that its encoders need: one of these."""
    example: Callable[[Mapping[str, Any]], str]
    """Its entry in a processor -> Python code of a made-up sample, for cards."""
    imports: str = ""
    """What that code needs."""
    row_decoders: Mapping[str, str] = field(default_factory=dict)
    """Of suffixes whose bytes do not say what they are, the decoders of their own; all others have ``decoder``."""
    restrictions: tuple[str, ...] = ()
    """Keys that restrict its operations to some features or time steps."""
    resized: bool = False
    """Whether samples are brought to ``size`` when they are read, and may be larger before."""
    tokens: bool = False
    """Whether a sample is a row of tokens or of time steps."""
    tokenized: bool = False
    """Whether a tokenizer makes its tensors."""
    extracted: bool = False
    """Whether a feature extractor makes its tensors, at a sampling rate and to a length that it may know itself, and
    augmentations work on what it is given."""
    packages: tuple[str, ...] = ()
    """What its decoder needs beyond a plain installation, as modules."""
    extra: str = ""
    """The extra that installs them."""
    statistics: tuple[str, ...] = ()
    """Keys of its entry in a processor that pretrained weights may bring."""
    preparation: Mapping[str, str] = field(default_factory=dict)
    """Those of these keys that the config may set as well -> the value where neither says anything."""
    data_statistics: bool = False
    """Whether ``dataset.json`` may bring them too."""
    transformers_models: str | None = None
    """Which models of transformers encode it, in words; None: none."""
    transformers_sizes: Mapping[str, str] = field(default_factory=dict)
    """Keywords of such a model's config -> the key of the modality that fills them."""
    drawing: Drawing = Drawing.nothing
    """How it is shown in pictures."""
    listed: bool = False
    """Whether a sample may hold several of which one is drawn, in further members or in JSON."""
    preview: str = "mmpretrain.preview.plain.PlainPreview"
    """How it is shown on the page of ``mmpretrain shards preview``: a class (mmpretrain/preview/plain.py)."""

    @property
    def padded(self) -> bool:
        """Whether the samples of a batch are padded to one length here, and not by a feature extractor."""
        return self.tokens and not self.extracted

    @property
    def size_form(self) -> str:
        """The form of ``size``, as messages show it; empty where there is none."""
        return f"[{', '.join(self.size)}]" if self.size else ""


def _image_example(entry: Mapping[str, Any]) -> str:
    height, width = entry["size"]
    return f'Image.new("{"L" if entry["channels"] == 1 else "RGB"}", ({width}, {height}))'


def _audio_example(entry: Mapping[str, Any]) -> str:
    rate = entry["sampling_rate"]
    return f'{{"array": np.zeros({rate}), "sampling_rate": {rate}}}'


# What views get by default: Dufumier et al., arXiv 2409.07402, and its released code. The order of the rows, and
# of the operations in them, is that of the columns of random numbers that augmentations draw (data/augment/draws.py):
# whatever is new comes last, or every run would draw other numbers.
KINDS = {
    Kind.image: KindRow(
        size=("height", "width"),
        described_by=("size", "channels"),
        suffixes=("jpeg", "jpg", "png", "webp", "gif", "bmp", "tif", "tiff"),
        decoder="mmpretrain.data.kinds.image.decode",
        augmentation="mmpretrain.data.augment.images.ImageAugmentation",
        operations=("crop", "flip", "jitter", "grey", "blur"),
        default_views={"crop": [0.08, 1.0], "flip": 0.5, "jitter": 0.8, "grey": 0.2, "blur": 0.5},
        tensors=("pixel_values",),
        example=_image_example,
        imports="from PIL import Image",
        statistics=("mean", "std", "shortest_edge", "resize", "resample", "background"),
        preparation={"resize": "crop", "background": "white"},
        resized=True,
        transformers_models="a vision model of transformers",
        transformers_sizes={"image_size": "size", "num_channels": "channels"},
        drawing=Drawing.picture,
        preview="mmpretrain.preview.pictures.PicturePreview",
    ),
    Kind.sequence: KindRow(
        size=("time steps", "features"),
        described_by=("size",),
        suffixes=("npy",),
        decoder="mmpretrain.data.kinds.array.decode",
        augmentation="mmpretrain.data.augment.series.SequenceAugmentation",
        operations=("shuffle", "drop", "noise"),
        restrictions=("features", "silent"),
        default_views={"drop": 0.5, "noise": 0.5},
        tensors=("values",),
        example=lambda entry: f"np.zeros({list(entry['size'])})",
        imports="import numpy as np",
        tokens=True,
    ),
    Kind.vector: KindRow(
        size=("features",),
        described_by=("size",),
        suffixes=("npy", "f16", "f32"),
        decoder="mmpretrain.data.kinds.array.decode",
        augmentation="mmpretrain.data.augment.series.VectorAugmentation",
        operations=("swap", "drop", "noise"),
        restrictions=("features",),
        default_views={"noise": 0.5},
        tensors=("values",),
        example=lambda entry: f"np.zeros({entry['size'][0]})",
        imports="import numpy as np",
        row_decoders={
            "f16": "mmpretrain.data.kinds.rows.decode_f16",
            "f32": "mmpretrain.data.kinds.rows.decode_f32",
        },
        statistics=("minimum", "maximum"),
        data_statistics=True,
    ),
    Kind.text: KindRow(
        size=(),
        described_by=("max_length",),
        suffixes=("txt", "json"),
        decoder="mmpretrain.data.kinds.text.decode",
        augmentation="mmpretrain.data.augment.texts.TextAugmentation",
        operations=("mask", "delete"),
        default_views={"mask": 0.15},
        tensors=("input_ids",),
        example=lambda entry: '"a text"',
        tokens=True,
        tokenized=True,
        transformers_models="a text model of transformers",
        drawing=Drawing.words,
        listed=True,
        preview="mmpretrain.preview.words.TextPreview",
    ),
    Kind.audio: KindRow(
        size=(),
        described_by=("sampling_rate", "seconds"),
        suffixes=("flac", "mp3", "oga", "ogg", "opus", "wav"),
        decoder="mmpretrain.data.kinds.audio.decode",
        augmentation="mmpretrain.data.augment.sounds.SoundAugmentation",
        operations=("crop", "gain", "noise"),
        default_views={"crop": [0.5, 1.0], "gain": 0.5, "noise": 0.5},
        tensors=("input_features", "input_values"),
        example=_audio_example,
        imports="import numpy as np",
        tokens=True,
        extracted=True,
        packages=("soundfile", "soxr"),
        extra="audio",
        transformers_models="an audio model of transformers",
        drawing=Drawing.spectrogram,
    ),
}
