"""Sounds embedded by releases of this project and by models of transformers: pairs of towers and single encoders."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import (
    ClapFeatureExtractor,
    Wav2Vec2Config,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2Model,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperModel,
)

from mmpretrain.assembly import sounds
from mmpretrain.assembly.build import build_model, build_processor
from mmpretrain.data.kinds.audio import decode
from mmpretrain.embedding.encode import embed_share
from mmpretrain.hub.export import export_release
from mmpretrain.problems import UnusableError
from tests.assembly.test_sounds import CONVOLUTIONS, WHISPER
from tests.data.tones import RATE, SECONDS, encoded, tone, tones_config, write_tones
from tests.embedding.spaces import job, write_clap
from tests.embedding.test_encode import CPU, normalized, read
from tests.hub.test_card import facts

KEYS = [f"s{number:04d}" for number in range(8)]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards of pictures, tones and captions."""
    folder = tmp_path_factory.mktemp("tones")
    write_tones(folder, 8)
    return folder


def first_tones() -> list[np.ndarray]:
    """Samples 0 and 2, both of 16 kHz, with the 16 bits that files have of them."""
    waves = [tone(number, RATE, SECONDS * (0.5 + 0.1 * number)) for number in (0, 2)]
    return [decode(encoded(wave))["array"] for wave in waves]


def embedded(release: Path, data: Path, out: Path, **changes: object) -> dict[str, np.ndarray]:
    """Key -> embedding of the sound."""
    embed_share(job(release, data, out, **changes), 0, 1, CPU)
    return read(out / "train", "sound")


def check(found: dict[str, np.ndarray], expected: Tensor, tolerance: float = 1e-5) -> None:
    """Every sample has an embedding; those of samples 0 and 2 are these."""
    assert list(found) == KEYS
    for key, row in zip(("s0000", "s0002"), normalized(expected), strict=True):
        assert abs(found[key] - row).max() < tolerance


def test_a_release_of_this_project(data: Path, tmp_path: Path) -> None:
    config = tones_config(data, "picture", "sound")
    torch.manual_seed(0)
    model, processor = build_model(config).eval(), build_processor(config)
    export_release(model, model.state_dict(), processor, tmp_path / "release", facts(method="clip"))
    inputs = processor(sound=first_tones(), sampling_rate=RATE)
    check(embedded(tmp_path / "release", data, tmp_path / "out"), model(**inputs).embeds["sound"])


def test_a_missing_extra_is_said_before_anything_is_read(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Wav2Vec2Model(Wav2Vec2Config(**CONVOLUTIONS)).save_pretrained(tmp_path / "wav2vec2")
    Wav2Vec2FeatureExtractor().save_pretrained(tmp_path / "wav2vec2")
    monkeypatch.setattr(sounds.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UnusableError, match=r"'sound' is audio.*pip install 'mmpretrain-contrastive\[audio\]'"):
        embedded(tmp_path / "wav2vec2", data, tmp_path / "out")


def test_a_clap_embeds_sounds_and_texts(data: Path, tmp_path: Path) -> None:
    model = write_clap(tmp_path / "clap")
    extractor = ClapFeatureExtractor(feature_size=16, sampling_rate=RATE, frequency_max=8000, max_length_s=1)
    extractor.truncation = "rand_trunc"
    extractor.save_pretrained(tmp_path / "clap")
    inputs = extractor(first_tones(), sampling_rate=RATE, return_tensors="pt")
    expected = model.get_audio_features(input_features=inputs["input_features"].float()).pooler_output
    check(embedded(tmp_path / "clap", data, tmp_path / "out"), expected)
    assert list(read(tmp_path / "out" / "train", "caption")) == KEYS


def test_a_single_encoder_pools_the_frames_that_hold_sound(data: Path, tmp_path: Path) -> None:
    model = Wav2Vec2Model(Wav2Vec2Config(**CONVOLUTIONS, feat_extract_norm="layer")).eval()
    model.save_pretrained(tmp_path / "wav2vec2")
    extractor = Wav2Vec2FeatureExtractor(return_attention_mask=True)
    extractor.save_pretrained(tmp_path / "wav2vec2")
    found = embedded(tmp_path / "wav2vec2", data, tmp_path / "out")
    rows = []
    for sound in first_tones():
        inputs = extractor(sound, sampling_rate=RATE, return_tensors="pt")
        rows.append(model(**inputs).last_hidden_state.mean(dim=1))
    check(found, torch.cat(rows), 1e-4)


def test_of_whisper_the_encoder_embeds(data: Path, tmp_path: Path) -> None:
    model = WhisperModel(WhisperConfig(**WHISPER, max_source_positions=50)).eval()
    model.save_pretrained(tmp_path / "whisper")
    WhisperFeatureExtractor(chunk_length=1).save_pretrained(tmp_path / "whisper")
    found = embedded(tmp_path / "whisper", data, tmp_path / "out", pool="cls")
    inputs = WhisperFeatureExtractor(chunk_length=1)(first_tones(), sampling_rate=RATE, return_tensors="pt")
    check(found, model.encoder(inputs["input_features"]).last_hidden_state[:, 0])
