"""Sounds: arrays of any sampling rate -> the tensors of an audio encoder, by the model's own feature extractor.

Also what audio models of transformers need beyond the other ones: which part of a model encodes, and which of its
frames hold sound. Shapes: b samples, N samples of a waveform at the modality's rate.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import transformers
from torch import Tensor, nn

from .reading_mmpretrain import as_array, heard

try:
    import soxr
except ImportError:  # Sounds that already have the modality's rate work without it.
    soxr = None

ARRAY, RATE = "array", "sampling_rate"
# Resampling changes a sound near its ends only; what is cut off later than this is never heard.
MARGIN_S = 0.1
# Samples of a frame of AST's extractor (and of Wav2Vec2's convolutions), and from one to the next.
WINDOW, HOP = 400, 160
# model_type -> the part of its model that encodes sounds.
PARTS = {"whisper": "encoder"}
# model_type -> the class of an encoder that AutoModel does not know.
CLASSES = {
    "clap_audio_model": "ClapAudioModel",
    "clap_text_model": "ClapTextModel",
    "metaclip_2_text_model": "MetaClip2TextModel",
    "metaclip_2_vision_model": "MetaClip2VisionModel",
    "siglip_text_model": "SiglipTextModel",
}
EXTRACTORS = ("ASTFeatureExtractor", "ClapFeatureExtractor", "Wav2Vec2FeatureExtractor", "WhisperFeatureExtractor")


def audio_tensors(name: str, sounds: Any, modality: dict[str, Any], extractor: Any) -> dict[str, Tensor]:
    """Sounds ``{"array": [n], "sampling_rate": hertz}`` (one or a list) -> what ``extractor`` makes of them, [b, ...].

    Resampled to the modality's ``sampling_rate`` and cut after its ``seconds``; shorter ones are filled up, so that
    the shapes are always the same. With ``"waveform": True`` the samples themselves: ``waveform`` float32 [b, N] and
    ``length`` int64 [b]. Raises ValueError for anything else, and where soxr is needed and not installed.
    """
    items = list(sounds) if isinstance(sounds, (list, tuple)) else [sounds]
    if not items:
        raise ValueError(f"modality {name!r} got an empty list")
    waveforms = [waveform(name, item, modality) for item in items]
    if not modality.get("waveform"):
        return extracted(waveforms, modality, extractor)
    rows = np.zeros((len(waveforms), samples_of(modality)), dtype=np.float32)
    for row, wave in zip(rows, waveforms, strict=True):
        row[: len(wave)] = wave
    return {"waveform": torch.from_numpy(rows), "length": torch.tensor([len(wave) for wave in waveforms])}


def with_rates(name: str, sounds: Any, rate: int | None) -> Any:
    """Bare arrays and paths of files among ``sounds`` (one or a list) as ``{"array", "sampling_rate"}``. rate: of the
    arrays, in hertz.

    Raises ValueError for a bare array without a rate: guessing it would shift every pitch.
    """
    several = isinstance(sounds, (list, tuple)) and not (sounds and isinstance(sounds[0], (int, float)))
    return [_rated(name, s, rate) for s in sounds] if several else _rated(name, sounds, rate)


def _rated(name: str, sound: Any, rate: int | None) -> Any:
    if sound is None or isinstance(sound, Mapping):
        return sound
    if isinstance(sound, (str, os.PathLike)):
        return dict(zip((ARRAY, RATE), heard(name, os.fspath(sound), rate), strict=True))
    if rate is None:
        raise ValueError(
            f'modality {name!r}: say how the array was sampled, sampling_rate=16000 or {{"array": ...,'
            ' "sampling_rate": 16000}'
        )
    return {ARRAY: sound, RATE: rate}


def waveform(name: str, sound: Any, modality: Mapping[str, Any]) -> np.ndarray:
    """One sound -> float32 [n], n <= N, at the modality's rate. Raises ValueError as :func:`audio_tensors`."""
    if not isinstance(sound, Mapping) or ARRAY not in sound or RATE not in sound:
        raise ValueError(
            f'modality {name!r} needs sounds {{"array": ..., "sampling_rate": ...}}, got a {type(sound).__name__}'
        )
    rate, wanted = sound[RATE], modality[RATE]
    if not isinstance(rate, (int, np.integer)) or isinstance(rate, bool) or rate < 1:
        raise ValueError(f"modality {name!r}: the sampling_rate is {rate!r}, a whole number of hertz is needed")
    # What is cut off later need not be resampled.
    wave = _mono(name, sound[ARRAY], math.ceil((modality["seconds"] + MARGIN_S) * rate))
    return resampled(name, wave, int(rate), wanted)[: samples_of(modality)]


def resampled(name: str, wave: np.ndarray, rate: int, wanted: int) -> np.ndarray:
    """float32 [n] at ``rate`` hertz -> [n * wanted / rate]. Raises ValueError where soxr is needed and missing."""
    if rate == wanted:
        return wave
    if soxr is None:
        raise ValueError(
            f"modality {name!r}: the sound has {rate} Hz and {wanted} are needed, and soxr is not installed:"
            " pip install soxr, or resample it"
        )
    found = np.asarray(soxr.resample(wave, rate, wanted), dtype=np.float32)
    # A click of a few samples may round to none.
    return found if len(found) else np.zeros(1, np.float32)


def samples_of(modality: Mapping[str, Any]) -> int:
    """N: how many samples of a sound count."""
    return max(1, round(modality["seconds"] * modality[RATE]))


def _mono(name: str, array: Any, most: int) -> np.ndarray:
    """The first ``most`` samples as float32; whole numbers are scaled by the range of their type, as in WAV files."""
    values = _array(name, array)
    if values.ndim != 1 or not len(values):
        raise ValueError(
            f"modality {name!r} needs arrays of shape [samples], got {list(values.shape)}: give the mean of the"
            " channels, and a list where there are several sounds"
        )
    values = values[:most]
    if values.dtype.kind == "i" and values.dtype.itemsize <= 4:
        values = values / float(2 ** (8 * values.dtype.itemsize - 1))
    elif values.dtype == np.uint8:
        values = (values - 128.0) / 128
    elif values.dtype.kind != "f":
        raise ValueError(f"modality {name!r} needs arrays of floats from -1 to 1 or of int16, got {values.dtype}")
    with np.errstate(over="ignore"):
        values = values.astype(np.float32)
    if not np.isfinite(values).all():
        raise ValueError(f"modality {name!r}: the array has values that are not finite")
    return values


def _array(name: str, array: Any) -> np.ndarray:
    if isinstance(array, (str, bytes)):
        raise ValueError(f"modality {name!r} needs arrays, got {array[:40]!r}: read the file first (soundfile.read)")
    try:
        return as_array(array)
    except ValueError:
        raise ValueError(
            f"modality {name!r} needs arrays of shape [samples], got a {type(array).__name__} of parts of several"
            " lengths"
        ) from None


def empty_sound(modality: dict[str, Any]) -> dict[str, Any]:
    """One sample of silence."""
    return {ARRAY: np.zeros(1, np.float32), RATE: modality[RATE]}


def supported(extractor: Any) -> bool:
    """Whether :func:`extracted` knows how this feature extractor of transformers pads."""
    return any(parent.__name__ in EXTRACTORS for parent in type(extractor).__mro__)


def extracted(waveforms: Sequence[np.ndarray], modality: Mapping[str, Any], extractor: Any) -> dict[str, Tensor]:
    """float32 [n] each, n <= N, at the modality's rate -> keyword tensors of the encoder, [b, ...] each.

    Nothing is drawn, and what a sample gets does not depend on the others: CLAP's extractor cuts long sounds at random,
    but none that comes here is too long for it, and marks one of every batch as longer, which none is.
    """
    form = next(parent.__name__ for parent in type(extractor).__mro__ if parent.__name__ in EXTRACTORS)
    arguments: dict[str, Any] = {"sampling_rate": modality[RATE], "return_tensors": "pt"}
    if form in ("ASTFeatureExtractor", "Wav2Vec2FeatureExtractor"):
        # Of less than a window there is no frame.
        waveforms = [np.pad(wave, (0, max(0, WINDOW - len(wave)))) for wave in waveforms]
    if form == "ClapFeatureExtractor":
        arguments["max_length"] = fixed_samples(extractor)
    elif form == "WhisperFeatureExtractor":
        arguments |= {"padding": "max_length", "max_length": fixed_samples(extractor), "return_attention_mask": True}
    elif form == "Wav2Vec2FeatureExtractor":
        arguments |= {"padding": "max_length", "max_length": samples_of(modality), "truncation": True}
    found = dict(extractor(list(waveforms), **arguments))
    if form == "ClapFeatureExtractor":
        longer = found.pop("is_longer")
        if extractor.truncation == "fusion":
            found["is_longer"] = torch.zeros_like(torch.as_tensor(longer), dtype=torch.bool)
    return {
        key: tensor.float() if tensor.is_floating_point() else tensor.long() if tensor.dtype != torch.bool else tensor
        for key, tensor in found.items()
    }


def fixed_samples(extractor: Any) -> int | None:
    """How many samples of a waveform an extractor takes, whatever it is given; None: as many as it is told."""
    names = {parent.__name__ for parent in type(extractor).__mro__}
    if "ASTFeatureExtractor" in names:
        return (extractor.max_length - 1) * HOP + WINDOW
    if "ClapFeatureExtractor" in names:
        return round(extractor.max_length_s * extractor.sampling_rate)
    if "WhisperFeatureExtractor" in names:
        return round(extractor.chunk_length * extractor.sampling_rate)
    return None


def audio_class(config: Any) -> Any | None:
    """The class of an encoder that AutoModel does not know, such as those of sounds; None: it knows it."""
    name = CLASSES.get(config.model_type)
    return getattr(transformers, name) if name else None


def audio_part(model: nn.Module, config: Any) -> nn.Module:
    """What of a model encodes sounds: of one with a decoder its encoder, else all of it."""
    return model.get_submodule(PARTS[config.model_type]) if config.model_type in PARTS else model


def frames_mask(backbone: nn.Module, mask: Tensor | None, frames: int) -> Tensor | None:
    """The mask of ``frames`` states, [b, frames], from that of the inputs, [b, n], which may have more steps."""
    if mask is None or mask.shape[1] == frames:
        return mask
    of_frames: Any = getattr(backbone, "_get_feature_vector_attention_mask", None)
    if of_frames is not None:
        found: Tensor = of_frames(frames, mask).to(mask.dtype)
        return found
    return mask[:, :: max(1, mask.shape[1] // frames)][:, :frames]
