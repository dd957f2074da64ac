"""Pretrained encoders, from a local folder or the Hub: safetensors only, and never code of theirs (not shipped)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import MODEL_MAPPING, AutoConfig, AutoModel, PreTrainedConfig
from transformers.utils import cached_file

from mmpretrain.config.model import EncoderConfig
from mmpretrain.models.encoders_mmpretrain import backbone_config, pooling_arguments
from mmpretrain.problems import UnusableError, cannot_open, one_line


def open_config(where: str, encoder: EncoderConfig) -> PreTrainedConfig:
    """The config of ``encoder.pretrained``, a transformers model or a release of ours. Raises UnusableError."""
    source = str(encoder.pretrained)
    try:
        config = AutoConfig.from_pretrained(source, revision=encoder.revision or "main", trust_remote_code=False)
    except Exception as error:  # Damaged files raise whatever their parser raises.
        raise cannot_open(f"{where}.pretrained", source, error) from error
    if Path(source).is_dir() and not any(Path(source).glob("*.safetensors")):
        raise UnusableError(
            [f"{where}.pretrained: {source} has no .safetensors file, and other formats are never loaded"]
        )
    return config


def load_config(where: str, encoder: EncoderConfig) -> PreTrainedConfig:
    """The config of a transformers model. Raises UnusableError if it cannot be opened or has no usable weights."""
    config = open_config(where, encoder)
    if type(config) not in MODEL_MAPPING:
        raise UnusableError([f"{where}.pretrained: transformers has no AutoModel for a {config.model_type}"])
    return config


def load_backbone(where: str, encoder: EncoderConfig, spec: dict[str, Any]) -> nn.Module:
    """The encoder's weights in float32, for the architecture ``spec``. Raises UnusableError if they misfit."""
    config, source = backbone_config(spec), str(encoder.pretrained)
    try:
        backbone, info = AutoModel.from_pretrained(
            source,
            revision=encoder.revision or "main",
            config=config,
            dtype=torch.float32,
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
            **pooling_arguments(config, spec["pool"]),
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise UnusableError([f"{where}.pretrained: {source!r} cannot be loaded ({one_line(error)})"]) from error
    lacking = sorted(str(key) for key in info["missing_keys"])
    if lacking:
        raise UnusableError([f"{where}.pretrained: {source!r} has no weights for {', '.join(lacking[:5])}"])
    return backbone


def pixel_statistics(encoder: EncoderConfig) -> dict[str, list[float]]:
    """``mean`` and ``std`` per channel that the pretrained weights expect, if their folder says so."""
    if not encoder.pretrained:
        return {}
    path = cached_file(
        encoder.pretrained,
        "preprocessor_config.json",
        revision=encoder.revision or "main",
        _raise_exceptions_for_missing_entries=False,
    )
    content = json.loads(Path(path).read_text(encoding="utf-8")) if path else {}
    return {ours: content[key] for ours, key in (("mean", "image_mean"), ("std", "image_std")) if key in content}
