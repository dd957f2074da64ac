"""A small model with an encoder of each form of states: map, tokens with and without a mask, vector."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from mmpretrain.config.data import DataConfig, Kind, ModalityConfig
from mmpretrain.config.methods.base import ModelParts
from mmpretrain.config.methods.names import MethodConfig
from mmpretrain.config.model import EncoderConfig, FactorsConfig, FusionConfig, ModelConfig
from mmpretrain.config.root import Config
from tests.models.small import BERT, MLP
from tests.small_tokenizer import small_tokenizer

WIDTH = 16
CNN = {"layers": [{"channels": 4}, {"channels": 6, "stride": 2}], "batch_norm": True}
SEQUENCE = {"width": WIDTH, "layers": 1, "heads": 2, "ff": 24, "dropout": 0.0}
NAMES = ("motion", "picture", "caption", "genes")

Inputs = dict[str, dict[str, Tensor]]


@dataclass
class Fusing(MethodConfig):
    """A method whose model has a fusion."""

    name: str = "fusing"

    def model_parts(self, model: ModelConfig, data: DataConfig) -> ModelParts:
        """A fusion alone."""
        return ModelParts(fusion=model.fusion.arguments())


@dataclass
class Factorizing(MethodConfig):
    """A method whose model has heads for shared and unique information."""

    name: str = "factorizing"

    def model_parts(self, model: ModelConfig, data: DataConfig) -> ModelParts:
        """Factors on top of embeddings."""
        return ModelParts(embed_dim=model.embed_dim, factors=asdict(model.factors))


def four_config(method: MethodConfig, fusion: dict[str, Any] | None = None, **model: Any) -> Config:
    """``motion`` (sequence), ``picture`` (cnn), ``caption`` (BERT) and ``genes`` (MLP), in this order."""
    modalities = {
        "motion": ModalityConfig(Kind.sequence, [6, 3]),
        "picture": ModalityConfig(Kind.image, [8, 4], 1),
        "caption": ModalityConfig(Kind.text, max_length=8),
        "genes": ModalityConfig(Kind.vector, [7]),
    }
    encoders = {
        "motion": EncoderConfig("sequence", dict(SEQUENCE)),
        "picture": EncoderConfig("cnn", dict(CNN)),
        "caption": EncoderConfig("bert", dict(BERT), tokenizer=small_tokenizer()),
        "genes": EncoderConfig("mlp", dict(MLP)),
    }
    top = {"fusion": FusionConfig(**{"width": WIDTH, "heads": 4, **(fusion or {})}), "factors": FactorsConfig(5, 3, 1)}
    return Config(
        method=method,
        data=DataConfig(name="four", path="nowhere", modalities=modalities, classes=3),
        model=ModelConfig(**{"encoders": encoders, **top, **model}),
    )


def four_inputs(seed: int = 0, count: int = 5) -> Inputs:
    """Random tensors of ``count`` samples; texts and sequences have their own lengths."""
    draw = torch.Generator().manual_seed(seed)
    steps, words = torch.arange(6) < torch.tensor([[6], [3], [1], [5], [2]])[:count], torch.arange(8) < 4
    return {
        "motion": {
            "values": torch.randn(count, 6, 3, generator=draw),
            "attention_mask": steps.long(),
        },
        "picture": {"pixel_values": torch.randn(count, 1, 8, 4, generator=draw)},
        "caption": {
            "input_ids": torch.randint(4, 10, (count, 8), generator=draw),
            "attention_mask": words.long().expand(count, 8).contiguous(),
        },
        "genes": {"values": torch.randn(count, 7, generator=draw)},
    }
