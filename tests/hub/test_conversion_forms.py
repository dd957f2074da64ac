"""SigLIP and CLAP of transformers as releases: what tells their forms from CLIP's is kept."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from transformers import ClapFeatureExtractor, SiglipConfig, SiglipImageProcessorPil, SiglipModel

from mmpretrain.assembly.build import build_model, build_processor
from mmpretrain.config.methods.names import ClipConfig
from mmpretrain.config.model import EncoderConfig
from mmpretrain.embedding.spaces import open_space
from mmpretrain.hub.conversion import convert
from mmpretrain.hub.towers import Kind, Tower
from mmpretrain.models.inputs_mmpretrain import MULTIPLE
from mmpretrain.problems import UnusableError
from mmpretrain.release_folder import verify_release
from tests.embedding.spaces import write_clap, write_clip, write_siglip
from tests.models.small import small_config

CPU = torch.device("cpu")
RATE = 16_000
DRAWS = np.random.default_rng(1)
SAMPLES: dict[str, list[Any]] = {
    "image": [Image.fromarray(DRAWS.integers(0, 256, (8, 8, 3), np.uint8)) for _ in range(2)],
    "text": ["a seven", "a bold light digit digit digit digit digit digit digit three"],
    "audio": [{"array": 0.1 * DRAWS.standard_normal(n), "sampling_rate": RATE} for n in (3000, 9000)],
}


def write_siglip2(folder: Path) -> None:
    """A SigLIP 2 of one resolution: as SigLIP, but for pictures, which are resized bilinearly."""
    write_siglip(folder)
    SiglipImageProcessorPil(size={"height": 8, "width": 8}, resample=Image.Resampling.BILINEAR).save_pretrained(folder)


def write_sounds(folder: Path) -> None:
    """A CLAP with its feature extractor."""
    write_clap(folder)
    ClapFeatureExtractor(
        feature_size=16, sampling_rate=RATE, frequency_max=8000, max_length_s=1, truncation="rand_trunc"
    ).save_pretrained(folder)


def embeddings(release: Path) -> dict[str, torch.Tensor]:
    """Of the samples, by kind."""
    opened = open_space(str(release), CPU)
    kinds = {tower: reading.kind.value for tower, reading in opened.towers.items()}
    return {kind: opened.features(tower, opened.tensors(tower, SAMPLES[kind])) for tower, kind in kinds.items()}


@pytest.mark.parametrize(
    ("write", "names"),
    [(write_siglip, ("picture", "caption")), (write_siglip2, None), (write_sounds, ("sound", "caption"))],
    ids=["siglip", "siglip2", "clap"],
)
def test_embeddings_stay_what_they_were(
    write: Callable[[Path], object], names: tuple[str, str] | None, tmp_path: Path
) -> None:
    write(tmp_path / "model")
    out = tmp_path / "release"
    model = convert(str(tmp_path / "model"), out, names)
    assert verify_release(out) == []
    before, after = embeddings(tmp_path / "model"), embeddings(out)
    assert set(before) == set(after) and list(model.embed_sizes) == list(names or before)
    for kind, right in before.items():
        torch.testing.assert_close(after[kind], right, rtol=1e-5, atol=1e-6)
    if "audio" in before:
        torch.testing.assert_close(after["audio"].norm(dim=1), torch.ones(2))


def test_pictures_of_siglip2_are_resized_as_it_was_trained(tmp_path: Path) -> None:
    write_siglip2(tmp_path / "model")
    convert(str(tmp_path / "model"), tmp_path / "release", None)
    spaces = [open_space(str(tmp_path / name), CPU) for name in ("model", "release")]
    large = [Image.fromarray(DRAWS.integers(0, 256, (40, 60, 3), np.uint8))]
    right, found = (space.tensors("image", large)["pixel_values"] for space in spaces)
    assert (found - right).abs().max() <= 2.01 / 127.5


def test_a_run_takes_siglips_text_encoder_as_it_was_trained(tmp_path: Path) -> None:
    """Without a mask, and with every text padded to the full length."""
    write_siglip(tmp_path / "model")
    convert(str(tmp_path / "model"), tmp_path / "release", ("picture", "caption"))
    config = small_config(ClipConfig(), embed_dim=None, classifier_hidden=6)
    del config.data.modalities["genes"], config.model.encoders["genes"]
    picture = config.data.modalities["picture"]
    picture.size, picture.channels = [8, 8], 3
    config.data.modalities["caption"].max_length = 10
    for name in ("picture", "caption"):
        config.model.encoders[name] = EncoderConfig(pretrained=str(tmp_path / "release"), freeze=True)
    model, processor = build_model(config).eval(), build_processor(config)
    assert model.config.encoders["caption"]["masked"] is False and MULTIPLE not in processor.modalities["caption"]
    with torch.no_grad():
        found = model(**processor(picture=SAMPLES["image"], caption=SAMPLES["text"])).embeds
    right = embeddings(tmp_path / "model")
    torch.testing.assert_close(found["caption"], right["text"], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(found["picture"], right["image"], rtol=1e-5, atol=1e-6)


def test_projections_of_other_forms_are_refused(tmp_path: Path) -> None:
    model: Any = write_clip(tmp_path / "clip")
    for projection in (nn.Linear(16, 12), nn.Sequential(nn.Linear(16, 12))):
        model.text_projection = projection
        with pytest.raises(UnusableError, match="a clip has no text_model whose text_projection is linear"):
            Tower("it", model, Kind.text)


def test_towers_of_different_widths_are_refused(tmp_path: Path) -> None:
    """They fit no space."""
    write_siglip(tmp_path / "siglip")
    kept: Any = SiglipModel.from_pretrained(tmp_path / "siglip")
    text = {**kept.config.text_config.to_dict(), "projection_size": 12}
    SiglipModel(SiglipConfig(text_config=text, vision_config=kept.config.vision_config.to_dict())).save_pretrained(
        tmp_path / "siglip"
    )
    with pytest.raises(UnusableError, match="other widths for every tower"):
        convert(str(tmp_path / "siglip"), tmp_path / "out")
