"""Drawn sounds: shards of tones beside pictures and captions of them, and a small config for them."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from transformers.utils import logging

from mmpretrain.config.data import DataConfig, Kind, ModalityConfig
from mmpretrain.config.methods.names import ClipConfig
from mmpretrain.config.model import EncoderConfig, ModelConfig
from mmpretrain.config.root import Config
from tests.data.small_dataset import Sample, png, write_split
from tests.small_tokenizer import small_tokenizer

RATE, SECONDS = 16_000, 0.3
WORDS = ("light", "bold", "three", "seven")
SMALL: dict[str, Any] = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
AST: dict[str, Any] = {**SMALL, "num_mel_bins": 32, "frequency_stride": 16, "time_stride": 16}
BERT: dict[str, Any] = {
    **SMALL,
    "max_position_embeddings": 8,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
}
VIT: dict[str, Any] = {**SMALL, "patch_size": 4, "image_size": [4, 8]}
logging.set_verbosity_error()


def tone(number: int, rate: int = RATE, seconds: float = SECONDS) -> np.ndarray:
    """One of four pitches: float32 [rate * seconds]."""
    time = np.arange(round(rate * seconds)) / rate
    return (0.25 * np.sin(2 * np.pi * (300 + 500 * (number % 4)) * time)).astype(np.float32)


def encoded(array: np.ndarray, rate: int = RATE, form: str = "WAV", subtype: str | None = None) -> bytes:
    """The file of a sound [n] or [n, channels]."""
    file = io.BytesIO()
    soundfile.write(file, array, rate, format=form, subtype=subtype)
    return file.getvalue()


def sounding(number: int, sample: Sample) -> Sample:
    """A sample with a tone of 8 or 16 kHz, mono or stereo, as its picture and its caption have it, too."""
    rate = (RATE, RATE // 2)[number % 2]
    wave = tone(number, rate, SECONDS * (0.5 + 0.1 * (number % 7)))
    wave = np.stack([wave] * (1 + number % 3 // 2), axis=1)
    kind = ("wav", "flac")[number % 5 // 4]
    return {
        "__key__": sample["__key__"],
        "picture.png": png(60 * (number % 4), (4, 8)),
        f"sound.{kind}": encoded(wave, rate, kind.upper()),
        "caption.txt": f"a {WORDS[number % 4]} digit",
    }


def write_tones(folder: Path, samples: int = 32) -> None:
    """``train`` and ``test`` of these many samples each."""
    for split in ("train", "test"):
        write_split(folder / split, (samples // 2, samples // 2), sounding)


def tones_config(folder: Path, *modalities: str, sound: EncoderConfig | None = None, **sounds: Any) -> Config:
    """CLIP of these modalities (``picture``, ``sound``, ``caption``). sounds: keys of ``data.modalities.sound``."""
    found = {
        "picture": ModalityConfig(Kind.image, [4, 8], channels=1),
        "sound": ModalityConfig(Kind.audio, **({"seconds": SECONDS} | sounds)),
        "caption": ModalityConfig(Kind.text, max_length=6),
    }
    encoders = {
        "picture": EncoderConfig("vit", dict(VIT)),
        "sound": sound or EncoderConfig("audio-spectrogram-transformer", dict(AST)),
        "caption": EncoderConfig("bert", dict(BERT), tokenizer=small_tokenizer()),
    }
    names = modalities or tuple(found)
    config = Config(
        method=ClipConfig(),
        data=DataConfig("tones", str(folder), None, {n: found[n] for n in names}, global_batch=8, window=2),
        model=ModelConfig(8, {n: encoders[n] for n in names}),
    )
    config.evaluation.final = []
    config.train.samples, config.optim.warmup_samples = 48, 8
    return config
