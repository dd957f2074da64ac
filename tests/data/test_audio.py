"""Sounds: every format and subtype becomes the same wave, and headers that lie or promise too much are refused."""

from __future__ import annotations

import importlib
import struct
import sys

import numpy as np
import pytest

from mmpretrain.config.data import Kind
from mmpretrain.config.implementation import implementation
from mmpretrain.data.decode import MissingExtraError, SampleError, decode
from mmpretrain.data.kinds import audio
from tests.data.tones import RATE, encoded, tone

WAVE = tone(1)
WAV, FLAC, OGG = encoded(WAVE), encoded(WAVE, form="FLAC"), encoded(WAVE, form="OGG")


def wave_of(data: bytes, suffix: str = "wav") -> np.ndarray:
    """The array of a sound of RATE hertz."""
    found = decode(f"sound.{suffix}", data, Kind.audio)
    assert isinstance(found, dict) and found["sampling_rate"] == RATE and found["array"].dtype == np.float32
    return found["array"]


@pytest.mark.parametrize(
    ("form", "subtype", "tolerance"),
    [
        ("WAV", "PCM_U8", 0.01),
        ("WAV", "PCM_16", 1e-4),
        ("WAV", "PCM_24", 1e-6),
        ("WAV", "FLOAT", 0),
        ("WAV", "DOUBLE", 0),
        ("WAVEX", "PCM_16", 1e-4),
        ("FLAC", "PCM_24", 1e-6),
        ("OGG", "VORBIS", 0.05),
        ("OPUS", None, 0.15),
        ("MP3", None, 0.05),
    ],
)
def test_every_format_gives_one_channel_of_the_same_wave(form: str, subtype: str | None, tolerance: float) -> None:
    suffix = form.lower().removesuffix("ex")
    if form == "OPUS":
        form, subtype = "OGG", "OPUS"
    alone = wave_of(encoded(WAVE, form=form, subtype=subtype), suffix)
    assert alone.shape == WAVE.shape and abs(alone - WAVE).max() <= tolerance
    both = wave_of(encoded(np.stack([WAVE, 0 * WAVE], axis=1), form=form, subtype=subtype), suffix)
    assert abs(both - WAVE / 2).max() <= tolerance + 1e-7


def test_silence_is_a_sound() -> None:
    assert not wave_of(encoded(np.zeros(100))).any()


def riff(frames: int) -> bytes:
    """WAV whose sizes are those of so many frames."""
    data = WAV.index(b"data")
    sizes = struct.pack("<I", 2 * frames + 36), struct.pack("<I", 2 * frames)
    return WAV[:4] + sizes[0] + WAV[8 : data + 4] + sizes[1] + WAV[data + 8 :]


def flac(frames: int) -> bytes:
    """FLAC whose header promises so many frames (36 bits of it)."""
    head = int.from_bytes(FLAC[18:26], "big") >> 36 << 36
    return FLAC[:18] + (head | frames).to_bytes(8, "big") + FLAC[26:]


@pytest.mark.parametrize(
    ("suffix", "data", "said"),
    [
        ("wav", b"<!DOCTYPE html>", "not a sound that can be read"),
        ("wav", WAV[:1000], r"the header promises \d+ bytes of sound, but 956 follow"),
        ("wav", WAV[:20], "not a sound that can be read"),
        ("wav", riff(10**8), "the header promises 200000000 bytes of sound"),
        ("flac", FLAC[: len(FLAC) // 2], "cannot be read to its end"),
        ("flac", flac(10**10), "625000 seconds at 16000 Hz are more than 3600"),
        ("flac", flac(len(WAVE) + 1000), "the header promises 5800 frames, but 4800 can be read"),
        ("mp3", encoded(tone(1, seconds=2.0), form="MP3")[:-2000], "the header promises 32000 frames, but"),
        ("ogg", OGG[:-10], r"the last page promises \d+ bytes, but \d+ follow: it was cut off"),
        ("ogg", OGG[: OGG.rindex(b"OggS") + 20], "the last page promises 0 bytes, but 0 follow: it was cut off"),
        ("wav", encoded(np.zeros(0)), "the sound is empty"),
        ("wav", encoded(np.array([0, 1e30]), subtype="FLOAT"), "values of up to 1.0e[+]30; floats lie from -1 to 1"),
        ("wav", encoded(np.array([0, np.nan]), subtype="FLOAT"), "not finite"),
        ("wav", encoded(np.array([0, 1e300]), subtype="DOUBLE"), "not finite"),
        ("wav", encoded(np.zeros((10, 17))), "17 channels are more than 16"),
        ("wav", encoded(np.zeros(10), rate=500), "500 Hz lies outside"),
        ("wav", encoded(WAVE, form="AIFF"), "a sound of format AIFF: use WAV"),
    ],
    ids=lambda value: value if isinstance(value, str) else "bytes",  # some of which hold the time of writing
)
def test_what_cannot_be_used_is_said_in_one_sentence(suffix: str, data: bytes, said: str) -> None:
    with pytest.raises(SampleError, match=rf"^sound\.{suffix}: .*{said}") as caught:
        wave_of(data, suffix)
    assert "0x" not in str(caught.value)


def test_a_stream_that_never_knew_its_length_is_read_to_its_end() -> None:
    assert len(wave_of(riff((1 << 31) - 100))) == len(WAVE)
    assert len(wave_of(flac(0), "flac")) == len(WAVE)


def test_of_wav_only_the_sound_must_be_whole() -> None:
    tags = WAV + b"LIST" + struct.pack("<I", 100) + b"INFO"  # cut off
    of_the_file = WAV[:4] + struct.pack("<I", len(WAV) + 8) + WAV[8:]
    for data in (tags, of_the_file):
        assert len(wave_of(data)) == len(WAVE)


def test_a_sound_longer_than_the_limit_is_not_read_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audio, "MAX_FRAMES", 1000)
    monkeypatch.setattr(audio, "BLOCK_VALUES", 500)
    monkeypatch.setattr(audio, "_check_header", lambda file: None)  # as if it had lied
    with pytest.raises(SampleError, match="0 seconds at 16000 Hz are more than 0"):
        wave_of(WAV)


def test_without_the_extra_its_name_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "soundfile", None)
    monkeypatch.delitem(sys.modules, "mmpretrain.data.kinds.audio")
    with pytest.raises(ImportError, match=r"pip install 'mmpretrain-contrastive\[audio\]'"):
        importlib.import_module("mmpretrain.data.kinds.audio")
    implementation.cache_clear()
    with pytest.raises(MissingExtraError, match=r"pip install 'mmpretrain-contrastive\[audio\]'"):
        decode("sound.wav", WAV, Kind.audio)
