"""Encoders that start from one tower of a model with several, as CLIP's."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from mmpretrain.assembly.build import build_model
from mmpretrain.config.model import EncoderConfig
from tests.embedding.spaces import write_clip, write_siglip
from tests.models.small import small_config


@pytest.mark.parametrize("write", [write_clip, write_siglip])
def test_an_encoder_is_the_tower_of_its_kind(tmp_path: Path, write: Callable[[Path], Any]) -> None:
    whole = write(tmp_path / "whole")
    config = small_config(embed_dim=None)
    picture = config.data.modalities["picture"]
    picture.size, picture.channels = [8, 8], 3
    for name in ("picture", "caption"):
        config.model.encoders[name] = EncoderConfig(pretrained=str(tmp_path / "whole"), freeze=True)
    encoders: Any = build_model(config).eval().encoders
    pixels, ids = torch.randn(2, 3, 8, 8), torch.tensor([[2, 4, 5, 3], [2, 6, 3, 0]])
    mask = (ids > 0).long()
    with torch.no_grad():
        states = encoders["picture"].states(pixel_values=pixels).values
        expected = whole.vision_model(pixel_values=pixels).last_hidden_state
        assert torch.allclose(states, expected, atol=1e-6)
        states = encoders["caption"].states(input_ids=ids, attention_mask=mask).values
        seen = mask if write is write_clip else None  # SigLIP's pooling sees padding
        expected = whole.text_model(input_ids=ids, attention_mask=seen).last_hidden_state
    assert torch.allclose(states, expected, atol=1e-6)
