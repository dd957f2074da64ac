"""Hyper-parameters of every method by name (no torch here). ``method.name`` selects the class."""

from __future__ import annotations

from mmpretrain.methods.settings.base import MethodConfig
from mmpretrain.methods.settings.clip import ClipConfig
from mmpretrain.methods.settings.m3col import M3colConfig, MixLevel, MixScope

__all__ = ["METHODS", "ClipConfig", "M3colConfig", "MethodConfig", "MixLevel", "MixScope"]

METHODS: dict[str, type[MethodConfig]] = {"clip": ClipConfig, "m3col": M3colConfig}
