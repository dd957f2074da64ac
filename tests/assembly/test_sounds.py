"""Encoders of sounds: by config and by weights, their feature extractors, and what does not fit together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import cross_entropy, normalize
from transformers import (
    ASTConfig,
    ASTFeatureExtractor,
    ASTModel,
    ClapAudioConfig,
    ClapAudioModel,
    ClapConfig,
    ClapFeatureExtractor,
    ClapModel,
    EncodecFeatureExtractor,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperModel,
)

from mmpretrain.assembly import sounds
from mmpretrain.assembly.build import build_model, build_processor
from mmpretrain.assembly.check import check_model
from mmpretrain.config.model import EncoderConfig
from mmpretrain.data.stream import Stream
from tests.data.tones import AST, RATE, SMALL, tone, tones_config, write_tones

# Without dropout, which draws other numbers on other ranks.
CONVOLUTIONS: dict[str, Any] = {
    **SMALL,
    "conv_dim": [8] * 7,
    **dict.fromkeys(("hidden_dropout", "attention_dropout", "feat_proj_dropout", "activation_dropout"), 0.0),
}
CLAP: dict[str, Any] = {
    "depths": [1, 1],
    "num_attention_heads": [1, 2],
    "hidden_size": 32,
    "patch_embeds_hidden_size": 16,
    "num_hidden_layers": 2,
    **dict.fromkeys(("hidden_dropout_prob", "attention_probs_dropout_prob", "drop_path_rate"), 0.0),
}
WHISPER: dict[str, Any] = {
    "d_model": 16,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 16,
    "decoder_ffn_dim": 16,
    "vocab_size": 10,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "decoder_start_token_id": 1,
}
# Architecture -> its config, and the pooling, rate and width that follow.
NEW: dict[str, tuple[dict[str, Any], str, int, int]] = {
    "audio-spectrogram-transformer": (AST, "mean", 16_000, 16),
    "clap_audio_model": (CLAP, "pooler", 48_000, 32),
    "whisper": (WHISPER, "mean", 16_000, 16),
    "wav2vec2": (CONVOLUTIONS, "mean", 16_000, 16),
    "hubert": (CONVOLUTIONS, "mean", 16_000, 16),
}


def config_of(encoder: EncoderConfig, **sound: Any) -> Any:
    """Pictures beside sounds with this encoder."""
    return tones_config(Path("nowhere"), "picture", "sound", sound=encoder, **sound)


def problems(encoder: EncoderConfig, **sound: Any) -> str:
    """What stands against it, in one string."""
    return "; ".join(check_model(config_of(encoder, **sound)).problems)


@pytest.mark.parametrize("architecture", NEW)
def test_new_encoders_fit_their_extractor_and_learn_with_every_parameter(architecture: str) -> None:
    given, pool, rate, width = NEW[architecture]
    config = config_of(EncoderConfig(architecture, dict(given)))
    assert not check_model(config).problems
    model, processor = build_model(config), build_processor(config)
    assert processor.modalities["sound"] == {"kind": "audio", "sampling_rate": rate, "seconds": 0.3}
    assert model.config.encoders["sound"]["pool"] == pool
    encoder = model.get_submodule("encoders.sound")
    inputs = processor(sound=[tone(0, rate), tone(1, rate)[:200]], sampling_rate=rate)["sound"]
    output = encoder(**inputs)
    assert output.shape == (2, width) and not torch.equal(output[0], output[1])
    output.square().sum().backward()
    assert all(p.grad is not None for p in encoder.parameters() if p.requires_grad)
    torch.manual_seed(0)
    assert torch.equal(encoder(**inputs).isnan().any(), torch.tensor(False))


def test_the_usual_extractor_of_ast_warns_of_nothing(recwarn: pytest.WarningsRecorder) -> None:
    build_processor(config_of(EncoderConfig("audio-spectrogram-transformer", {**AST, "num_mel_bins": 128})))
    assert not recwarn


def save_whisper(folder: Path) -> torch.nn.Module:
    model = WhisperModel(WhisperConfig(**WHISPER, max_source_positions=50))
    model.save_pretrained(folder)
    WhisperFeatureExtractor(chunk_length=1).save_pretrained(folder)
    return model.encoder


def save_clap(folder: Path) -> torch.nn.Module:
    model = ClapAudioModel(ClapAudioConfig(**CLAP))
    model.save_pretrained(folder)
    ClapFeatureExtractor(max_length_s=1, truncation="rand_trunc").save_pretrained(folder)
    return model


def save_both_towers(folder: Path) -> torch.nn.Module:
    model = ClapModel(ClapConfig(text_config={**SMALL, "vocab_size": 10}, audio_config=dict(CLAP), projection_dim=8))
    model.save_pretrained(folder)
    ClapFeatureExtractor(max_length_s=1, truncation="rand_trunc").save_pretrained(folder)
    return model.audio_model


def save_ast(folder: Path) -> torch.nn.Module:
    model = ASTModel(ASTConfig(**AST, max_length=98))
    model.save_pretrained(folder)
    ASTFeatureExtractor(num_mel_bins=32, max_length=98).save_pretrained(folder)
    return model


@pytest.mark.parametrize("save", [save_whisper, save_clap, save_both_towers, save_ast])
def test_pretrained_encoders_bring_weights_and_extractor(tmp_path: Path, save: Any) -> None:
    own = save(tmp_path).state_dict()
    config = config_of(EncoderConfig(pretrained=str(tmp_path)), seconds=None)
    assert not check_model(config).problems
    entry = build_processor(config).modalities["sound"]
    assert entry["seconds"] == pytest.approx(1, abs=0.03)
    model = build_model(config)
    assert model.config.encoders["sound"]["pool"] == ("mean" if save is save_whisper else "pooler")
    loaded = model.get_submodule("encoders.sound.backbone").state_dict()
    assert loaded.keys() == own.keys() and all(torch.equal(loaded[key], own[key]) for key in own)
    assert "takes 48000 Hz: set 48000" in problems(EncoderConfig(pretrained=str(tmp_path)), sampling_rate=RATE) or (
        entry["sampling_rate"] == RATE
    )
    assert "sound.seconds is 5, but its feature extractor takes" in problems(
        EncoderConfig(pretrained=str(tmp_path)), seconds=5
    )


def test_a_feature_extractor_of_its_own_folder(tmp_path: Path) -> None:
    ASTFeatureExtractor(num_mel_bins=16, max_length=40).save_pretrained(tmp_path)
    given = {key: value for key, value in AST.items() if key != "num_mel_bins"}
    encoder = EncoderConfig("audio-spectrogram-transformer", given, feature_extractor=str(tmp_path))
    config = config_of(encoder, seconds=None)
    assert not check_model(config).problems
    assert build_model(config).config.encoders["sound"]["config"]["num_mel_bins"] == 16
    EncodecFeatureExtractor().save_pretrained(tmp_path / "other")
    encoder.feature_extractor = str(tmp_path / "other")
    assert "has a EncodecFeatureExtractor; the feature extractors of AST" in problems(encoder)
    encoder.feature_extractor = str(tmp_path / "none")
    assert "model.encoders.sound.feature_extractor" in problems(encoder)


@pytest.mark.parametrize(
    ("encoder", "sound", "said"),
    [
        (EncoderConfig("bert", dict(SMALL)), {}, "of sounds, new encoders of audio-spectrogram-transformer"),
        (EncoderConfig("wav2vec2", {**CONVOLUTIONS, "layerdrop": 0.1}), {}, "config.layerdrop is 0.1: what it drops"),
        (EncoderConfig("audio-spectrogram-transformer", dict(AST)), {"sampling_rate": 8000}, "takes 16000 Hz"),
        (EncoderConfig("audio-spectrogram-transformer", dict(AST)), {"seconds": 0.01}, "at least 0.025 are needed"),
        (EncoderConfig("clap_audio_model", dict(CLAP)), {"seconds": 20}, "does not take what its feature extractor"),
    ],
)
def test_what_does_not_fit_is_said_before_a_run(encoder: EncoderConfig, sound: dict[str, Any], said: str) -> None:
    assert said in problems(encoder, **sound)


def test_a_missing_extra_is_said_before_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sounds.importlib.util, "find_spec", lambda name: None)
    found = problems(EncoderConfig("wav2vec2", dict(CONVOLUTIONS)))
    assert "pip install 'mmpretrain-contrastive[audio]'" in found and "soundfile, soxr not found" in found


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"seconds": 0}, "sound.seconds is 0: it must be above 0"),
        ({"sampling_rate": 10**7}, "sound.sampling_rate is 10000000"),
        ({"load_seconds": 0.1}, "sound.load_seconds is 0.1: set data.modalities.sound.seconds too"),
    ],
)
def test_keys_of_sounds(changes: dict[str, Any], said: str) -> None:
    assert said in "; ".join(config_of(EncoderConfig("wav2vec2"), **changes).problems())


def test_keys_of_sounds_are_for_sounds() -> None:
    config = tones_config(Path("nowhere"), "picture", "caption")
    config.data.modalities["picture"].seconds = 1.0
    config.model.encoders["caption"].feature_extractor = "folder"
    found = "; ".join(config.problems())
    assert "data.modalities.picture.seconds is for sounds, and data.modalities.picture is a image" in found
    assert "model.encoders.caption.feature_extractor is for sounds" in found


@pytest.mark.parametrize(
    "architecture",
    [name if name == "audio-spectrogram-transformer" else pytest.param(name, marks=pytest.mark.slow) for name in NEW],
)
def test_new_encoders_learn_to_tell_tones_apart(architecture: str, tmp_path: Path) -> None:
    """With the pool that they get by default; of eight samples two have the same tone, so that ln 2 is the best."""
    write_tones(tmp_path)
    config = tones_config(tmp_path, "sound", "caption", sound=EncoderConfig(architecture, dict(NEW[architecture][0])))
    torch.manual_seed(0)
    model = build_model(config)
    batches = list(Stream(config.data, "train", 0, 0, 1, build_processor(config)).batches(0, 8))
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for step in range(160):
        sides = [normalize(embeds, dim=1) for embeds in model(**batches[step % 8].inputs).embeds.values()]
        logits = 10 * sides[0] @ sides[1].T
        loss = (cross_entropy(logits, torch.arange(8)) + cross_entropy(logits.T, torch.arange(8))) / 2
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 1
