"""Sounds in explanations: maps over features and over waveforms, cut to what is heard, and the pictures of both."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import ClapFeatureExtractor
from typer.testing import CliRunner

from mmpretrain.assembly.build import build_model, build_processor
from mmpretrain.cli import app
from mmpretrain.config.kind import Kind
from mmpretrain.config.model import EncoderConfig
from mmpretrain.explain.attribution_maps import _sound_side
from mmpretrain.explain.opened import Towers
from mmpretrain.hub.export import export_release
from tests.assembly.test_sounds import CLAP, CONVOLUTIONS, WHISPER
from tests.data.tones import AST, RATE, tone, tones_config, write_tones
from tests.embedding.spaces import write_clap
from tests.hub.test_card import facts

ENCODERS: dict[str, dict[str, Any]] = {
    "audio-spectrogram-transformer": AST,
    "clap_audio_model": CLAP,
    "whisper": WHISPER,
    "wav2vec2": CONVOLUTIONS,
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards of pictures, tones and captions."""
    folder = tmp_path_factory.mktemp("tones")
    write_tones(folder, 48)
    return folder


@pytest.mark.parametrize("architecture", ["audio-spectrogram-transformer", "wav2vec2"])
def test_explain_draws_sounds(data: Path, tmp_path: Path, architecture: str) -> None:
    config = tones_config(data, "picture", "sound", sound=EncoderConfig(architecture, dict(ENCODERS[architecture])))
    model = build_model(config).eval()
    export_release(model, model.state_dict(), build_processor(config), tmp_path / "release", facts(method="clip"))
    options = ["--data", str(data), "--common=2", "--samples=1", "--json", "--pair=picture,sound"]
    outcome = CliRunner().invoke(app, ["explain", str(tmp_path / "release"), *options])
    assert outcome.exit_code == 0, outcome.output
    assert json.loads(outcome.stdout)["pair"] == ["picture", "sound"]
    assert list((tmp_path / "explain").glob("sample-*.png"))


@pytest.mark.parametrize("command", ["explain", "information"])
def test_a_plain_clap_hears_the_sounds_of_the_data(data: Path, tmp_path: Path, command: str) -> None:
    """Pictures beside them are nobody's; one that is named is refused."""
    write_clap(tmp_path / "clap")
    form: dict[str, Any] = {"feature_size": 16, "sampling_rate": RATE, "frequency_max": 8000, "max_length_s": 1}
    ClapFeatureExtractor(truncation="rand_trunc", **form).save_pretrained(tmp_path / "clap")
    options = ["--data", str(data), "--common=1", "--json", f"--out={tmp_path / 'out'}"]
    options += ["--samples=1"] if command == "explain" else []
    outcome = CliRunner().invoke(app, [command, str(tmp_path / "clap"), *options])
    assert outcome.exit_code == 0, outcome.output
    assert json.loads(outcome.stdout)["towers"] == {"caption": "text", "sound": "audio"}
    outcome = CliRunner().invoke(app, [command, str(tmp_path / "clap"), *options, "--pair=picture,caption"])
    assert "embeds caption, sound of this data, and not 'picture'" in json.loads(outcome.stdout)["errors"][0]


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (torch.ones(2, 5, 3), r"'text' gives \[5, 3\] numbers for each text, not one vector"),
        (None, "'text' does not take what is made of caption"),
    ],
)
def test_a_dual_model_that_cannot_be_used_is_refused(answer: torch.Tensor | None, message: str) -> None:
    """Models of transformers raise whatever their layers do, and some give a state for every token."""

    def features(**_: torch.Tensor) -> torch.Tensor:
        if answer is None:
            raise AttributeError("'NoneType' object has no attribute 'shape'")
        return answer

    model: Any = torch.nn.Identity()
    model.config, model.get_text_features = None, features
    with pytest.raises(ValueError, match=message):
        Towers(model, {"caption": Kind.text})(caption={"input_ids": torch.ones(2, 5)})


@pytest.mark.parametrize(
    ("architecture", "shape"),
    [
        ("audio-spectrogram-transformer", (28, 32)),
        ("clap_audio_model", (31, 64)),
        ("whisper", (10, 80)),
        ("wav2vec2", (1600,)),
    ],
)
def test_maps_run_in_time_and_end_with_the_sound(architecture: str, shape: tuple[int, ...]) -> None:
    encoder = EncoderConfig(architecture, dict(ENCODERS[architecture]))
    processor = build_processor(tones_config(Path("nowhere"), "picture", "sound", sound=encoder))
    tensors = processor(sound=tone(1, seconds=0.1), sampling_rate=RATE)["sound"]
    value = next(tensor for tensor in tensors.values() if tensor.is_floating_point())[0].double().numpy()
    side = _sound_side(tensors, value, 2 * value)
    assert isinstance(side.raw, np.ndarray) and side.raw.shape == side.common.shape == shape
    assert np.array_equal(side.individual, 2 * side.raw) and torch.from_numpy(side.raw).isfinite().all()
