"""Sounds to tensors: rates, lengths, types, masks, and that nothing is drawn."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from transformers import (
    ASTFeatureExtractor,
    ClapFeatureExtractor,
    Wav2Vec2Config,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2Model,
    WhisperFeatureExtractor,
)

from mmpretrain.models import audio_mmpretrain
from mmpretrain.models.audio_mmpretrain import frames_mask
from mmpretrain.models.processing_mmpretrain import MMPretrainProcessor
from tests.data.tones import RATE, SMALL, tone

ENTRY = {"kind": "audio", "sampling_rate": RATE, "seconds": 0.5}
CLAP: dict[str, Any] = {"sampling_rate": RATE, "max_length_s": 0.5, "frequency_max": 8000}
EXTRACTORS = {
    "ast": ASTFeatureExtractor(max_length=48, num_mel_bins=32),
    "wav2vec2": Wav2Vec2FeatureExtractor(return_attention_mask=True),
    "whisper": WhisperFeatureExtractor(chunk_length=0.5),
    "clap": ClapFeatureExtractor(truncation="rand_trunc", **CLAP),
    "clap fusion": ClapFeatureExtractor(truncation="fusion", **CLAP),
}


def processor(extractor: Any = EXTRACTORS["wav2vec2"], **changes: Any) -> MMPretrainProcessor:
    """Of one sound, ``x``."""
    return MMPretrainProcessor({"x": ENTRY | changes}, {}, {"x": extractor})


@pytest.mark.parametrize("name", EXTRACTORS)
def test_shapes_are_fixed_and_a_sound_is_the_same_in_any_batch(name: str) -> None:
    sounds = [tone(0, seconds=s) for s in (0.1, 0.5, 2.0)] + [np.zeros(1, np.float32)]
    whole = processor(EXTRACTORS[name])(x=sounds, sampling_rate=RATE)["x"]
    for row, sound in enumerate(sounds):
        alone = processor(EXTRACTORS[name])(x=sound, sampling_rate=RATE)["x"]
        assert alone.keys() == whole.keys()
        assert all(torch.equal(tensor[0], whole[key][row]) for key, tensor in alone.items())
    assert all(tensor.float().isfinite().all() for tensor in whole.values())
    key, first = next(iter(whole.items()))
    assert first.dtype is torch.float32 and not torch.equal(first[0], first[3])
    # Of a longer sound the first part counts.
    cut = processor(EXTRACTORS[name])(x=sounds[2][:8000], sampling_rate=RATE)["x"]
    assert torch.equal(first[2], cut[key][0])


def test_sounds_of_other_rates_are_resampled() -> None:
    there, here = ({"array": tone(0, rate, 0.5), "sampling_rate": rate} for rate in (8000, RATE))
    plain = processor(Wav2Vec2FeatureExtractor(do_normalize=False))
    resampled, same = plain(x=[there, here])["x"]["input_values"]
    assert abs(resampled - same)[200:-200].max() < 0.01
    assert torch.equal(plain(x=there)["x"]["input_values"][0], resampled)


@pytest.mark.parametrize(
    ("scale", "dtype"), [(2**15, np.int16), (2**31, np.int32), (1, np.float64)], ids=["int16", "int32", "float64"]
)
def test_whole_numbers_are_scaled_by_their_range(scale: float, dtype: Any) -> None:
    plain = processor(Wav2Vec2FeatureExtractor(do_normalize=False))
    wave = tone(1, seconds=0.1)
    given = plain(x=(wave.astype(np.float64) * scale).astype(dtype), sampling_rate=RATE)["x"]["input_values"]
    assert abs(given[0, : len(wave)].numpy() - wave).max() < 1e-4


@pytest.mark.parametrize(
    ("sample", "said"),
    [
        (tone(0), "say how the array was sampled, sampling_rate=16000"),
        ({"array": tone(0)}, "needs sounds"),
        ({"array": np.zeros((2, 100)), "sampling_rate": RATE}, r"got \[2, 100\]: give the mean of the channels"),
        ({"array": np.zeros(0), "sampling_rate": RATE}, r"got \[0\]"),
        ({"array": np.array([np.nan]), "sampling_rate": RATE}, "not finite"),
        ({"array": np.zeros(3, np.int64), "sampling_rate": RATE}, "got int64"),
        ({"array": tone(0), "sampling_rate": 0}, "the sampling_rate is 0"),
        ({"array": (tone(0), RATE), "sampling_rate": RATE}, "got a tuple of parts of several lengths"),
        ({"array": "a.wav", "sampling_rate": RATE}, "got 'a.wav': read the file first"),
        ([], "got an empty list"),
    ],
)
def test_what_is_no_sound_is_refused(sample: Any, said: str) -> None:
    with pytest.raises(ValueError, match=f"'x'.*{said}"):
        processor()(x=sample)


def test_a_rate_without_a_sound_is_refused() -> None:
    texts = MMPretrainProcessor({"x": {"kind": "vector", "size": [2]}})
    with pytest.raises(ValueError, match="sampling_rate is for sounds"):
        texts(x=np.zeros(2), sampling_rate=RATE)
    with pytest.raises(ValueError, match="no feature extractor was given"):
        MMPretrainProcessor({"x": ENTRY})


def test_without_soxr_only_other_rates_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audio_mmpretrain, "soxr", None)
    assert processor()(x=tone(0), sampling_rate=RATE)
    with pytest.raises(ValueError, match=r"has 8000 Hz and 16000 are needed.*pip install soxr"):
        processor()(x=tone(0, 8000), sampling_rate=8000)


def test_absent_sounds() -> None:
    found = processor(optional=True)(x=[None, {"array": tone(0), "sampling_rate": RATE}])["x"]
    assert found["present"].tolist() == [False, True] and not found["input_values"][0].any()
    assert found["attention_mask"].sum(dim=1).min() >= 1


def test_frames_of_padding_are_not_averaged() -> None:
    model = Wav2Vec2Model(Wav2Vec2Config(**SMALL, conv_dim=[8] * 7))
    mask = (torch.arange(8000) < torch.tensor([[4000], [8000]])).long()
    assert frames_mask(model, mask, 24).sum(dim=1).tolist() == [12, 24]  # type: ignore[union-attr]
    assert frames_mask(torch.nn.Identity(), mask[:, ::160], 25).sum(dim=1).tolist() == [13, 25]  # type: ignore[union-attr]
    assert frames_mask(model, None, 24) is None
