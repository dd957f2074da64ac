"""Small models for what tools do with them, built from configs alone, and their inputs."""

from __future__ import annotations

from typing import Any

import torch

from mmpretrain.models.configuration_mmpretrain import MMPretrainConfig
from mmpretrain.models.modeling_mmpretrain import MMPretrainModel

# 64 divides them all, as 4 bits on CPUs need.
LAYERS: dict[str, Any] = {
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 128,
}
ENCODERS: dict[str, dict[str, Any]] = {
    "picture": {
        "architecture": "vit",
        "config": {**LAYERS, "image_size": [8, 4], "patch_size": 2, "num_channels": 1},
        "pool": "cls",
    },
    "caption": {
        "architecture": "bert",
        "config": {**LAYERS, "max_position_embeddings": 16, "vocab_size": 30},
        "pool": "mean",
    },
    "genes": {"architecture": "mlp", "config": {"input_size": 7, "hidden_size": 64, "output_size": 32}, "pool": "mean"},
    "steps": {
        "architecture": "sequence",
        "config": {"input_size": 6, "width": 64, "layers": 2, "heads": 2, "ff": 64, "dropout": 0.0},
        "pool": "mean",
    },
}
PLAIN = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}


def tool_model(*names: str, seed: int = 0, **options: Any) -> MMPretrainModel:
    """A model with these encoders (default: picture and caption, as CLIP), in evaluation mode, without dropout."""
    names = names or ("picture", "caption")
    encoders = {name: {**ENCODERS[name], "config": {**ENCODERS[name]["config"]}} for name in names}
    for name in {"picture", "caption"} & set(names):
        encoders[name]["config"] |= PLAIN
    torch.manual_seed(seed)
    if not options:
        options = {"embed_dim": 64, "similarity": {"form": "softmax"}, "method": "clip"}
    return MMPretrainModel(MMPretrainConfig(encoders=encoders, modalities=list(names), **options)).eval()


def fused_model(*names: str, seed: int = 0, **options: Any) -> MMPretrainModel:
    """As :func:`tool_model` under a fusion of all modalities."""
    return tool_model(*names, seed=seed, fusion={"width": 64, "heads": 2, "layers": 2}, method="comm", **options)


def tool_inputs(*names: str, count: int = 3, length: int = 7, seed: int = 0) -> dict[str, dict[str, torch.Tensor]]:
    """Tensors of ``count`` samples; texts and sequences have ``length`` places, of which the first sample lacks two."""
    generator = torch.Generator().manual_seed(seed)
    mask = torch.ones(count, length, dtype=torch.long)
    mask[0, max(1, length - 2) :] = 0
    every = {
        "picture": {"pixel_values": torch.randn(count, 1, 8, 4, generator=generator)},
        "caption": {"input_ids": torch.randint(1, 30, (count, length), generator=generator), "attention_mask": mask},
        "genes": {"values": torch.randn(count, 7, generator=generator)},
        "steps": {"values": torch.randn(count, length, 6, generator=generator), "attention_mask": mask},
    }
    return {name: every[name] for name in names or ("picture", "caption")}
