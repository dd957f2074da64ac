"""A run's config as trackers get it."""

from __future__ import annotations

from typing import Any

from omegaconf import OmegaConf

from mmpretrain.config.root import Config
from mmpretrain.words import without_secrets


def plain_config(config: Config) -> dict[str, Any]:
    """Plain containers, without passwords and signatures in addresses of data."""
    return _clean(OmegaConf.to_container(OmegaConf.structured(config), enum_to_str=True))


def _clean(value: Any) -> Any:
    if isinstance(value, str):
        return without_secrets(value)
    if isinstance(value, list):
        return [_clean(entry) for entry in value]
    return {key: _clean(entry) for key, entry in value.items()} if isinstance(value, dict) else value
