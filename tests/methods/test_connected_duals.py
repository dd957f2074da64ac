"""Models of transformers with a tower per kind are connected as they lie: CLIP or SigLIP with CLAP, by their texts."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from transformers import AutoModel, AutoTokenizer, ClapFeatureExtractor

from mmpretrain.assembly.dual import open_dual
from mmpretrain.config.data import DataConfig, Kind, ModalityConfig
from mmpretrain.config.methods.names import CmcrConfig
from mmpretrain.config.model import ConnectedSpace, ModelConfig
from mmpretrain.config.root import Config
from mmpretrain.embedding.spaces import open_space
from mmpretrain.methods.cmcr_release import release_problems
from mmpretrain.problems import UnusableError
from tests.data.tones import RATE, tone
from tests.embedding.spaces import write_bert, write_clap, write_clip, write_siglip
from tests.methods.test_cmcr_release import OPEN, embeds, ship
from tests.models.small import fresh_interpreter

CPU = torch.device("cpu")
PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8))
SAMPLES: dict[str, Any] = {
    "image": [PICTURE, PICTURE.rotate(90)],
    "text": ["a bold seven", "a light three digit"],
    "audio": [{"array": tone(n, RATE, 1.0), "sampling_rate": RATE} for n in (0, 2)],
}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """clip, siglip, clap and bert."""
    root = tmp_path_factory.mktemp("models")
    for name, write in {"clip": write_clip, "siglip": write_siglip, "clap": write_clap, "bert": write_bert}.items():
        write(root / name)
    extractor = ClapFeatureExtractor(feature_size=16, sampling_rate=RATE, frequency_max=8000, max_length_s=1)
    extractor.truncation = "rand_trunc"
    extractor.save_pretrained(root / "clap")
    return root


def connection(first: Path, second: Path) -> Config:
    """A config that connects both."""
    folders = {ConnectedSpace.first: first, ConnectedSpace.second: second}
    widths = {side: next(iter(open_dual("x", folder).sizes.values())) for side, folder in folders.items()}
    modalities = {
        f"{side}_{role}": ModalityConfig(Kind.vector, [widths[side]])
        for side in ConnectedSpace
        for role in ("shared", "partner")
    }
    method = CmcrConfig(first=str(first), second=str(second))
    return Config(method=method, data=DataConfig("pairs", "nowhere", modalities=modalities), model=ModelConfig())


def features(folder: Path, name: str) -> Tensor:
    """What the model's own ``get_..._features`` gives for the samples, by the space that ``embed`` uses."""
    opened = open_space(str(folder), CPU)
    return opened.features(name, opened.tensors(name, SAMPLES[name]))


@pytest.mark.parametrize("first", ["clip", "siglip"])
def test_the_release_holds_both_models_whole(first: str, models: Path, tmp_path: Path) -> None:
    config = connection(models / first, models / "clap")
    assert release_problems(config) == []
    trained = ship(config, tmp_path / "whole")
    found = embeds(tmp_path / "whole", SAMPLES)
    assert list(found) == ["image", "text", "audio"]
    for name, side, folder in (("image", "first", first), ("text", "first", first), ("audio", "second", "clap")):
        with torch.no_grad():
            rows = {"values": features(models / folder, name)}
            expected = trained(**{f"{side}_partner": rows}).embeds[f"{side}_partner"]
        torch.testing.assert_close(found[name], expected, rtol=0, atol=1e-5)
    whole = torch.cat([tensor.flatten() for tensor in AutoModel.from_pretrained(models / first).state_dict().values()])
    held = open_dual("x", models / first)
    assert torch.equal(torch.cat([tensor.flatten() for tensor in held.weights.values()]), whole)


def test_a_siglip_gets_no_mask_for_its_texts(models: Path) -> None:
    """It was trained on padding; with a mask its embeddings are others."""
    assert open_dual("x", models / "siglip").content["dual"]["masked"] is False
    assert open_dual("x", models / "clip").content["dual"]["masked"] is True
    tokenizer = AutoTokenizer.from_pretrained(models / "siglip")
    tokens = tokenizer(SAMPLES["text"], padding="max_length", max_length=10, return_tensors="pt")
    model = AutoModel.from_pretrained(models / "siglip").eval()
    with torch.no_grad():
        expected = model.get_text_features(tokens["input_ids"]).pooler_output
    torch.testing.assert_close(features(models / "siglip", "text"), expected)


@pytest.mark.processes
def test_it_opens_where_this_package_is_absent(models: Path, tmp_path: Path) -> None:
    ship(connection(models / "clip", models / "clap"), tmp_path / "whole")
    expected = embeds(tmp_path / "whole", SAMPLES)
    (tmp_path / "expected.pkl").write_bytes(pickle.dumps((SAMPLES, expected)))
    fresh_interpreter(OPEN, tmp_path, str(tmp_path / "whole"), str(tmp_path / "expected.pkl"), ours=False)


def test_other_models_and_damaged_ones_are_named(models: Path, tmp_path: Path) -> None:
    config = connection(models / "clip", models / "clap")
    method = config.method
    assert isinstance(method, CmcrConfig)
    method.second = str(models / "bert")
    (problem,) = release_problems(config)
    assert "is a bert, neither a release of this project nor a model with a tower per kind" in problem
    write_clip(tmp_path / "clip")
    (tmp_path / "clip" / "model.safetensors").write_bytes(b"x")
    with pytest.raises(UnusableError, match=r"method\.first: .* cannot be opened"):
        open_dual("method.first", tmp_path / "clip")
