"""Hyper-parameters of every method by name (no torch here). ``method.name`` selects the class."""

from __future__ import annotations

from mmpretrain.methods.settings.base import MethodConfig
from mmpretrain.methods.settings.clip import ClipConfig
from mmpretrain.methods.settings.cmcr import CmcrConfig, Passes
from mmpretrain.methods.settings.comm import CommConfig, Pairing, Terms
from mmpretrain.methods.settings.cross_self import CrossInputs, CrossLoss, CrossSelfConfig
from mmpretrain.methods.settings.factorcl import (
    Condition,
    CriticBatch,
    CriticForm,
    FactorclConfig,
    Form,
    LabelInput,
)
from mmpretrain.methods.settings.m3col import M3colConfig, MixLevel, MixScope
from mmpretrain.methods.settings.mucmm import Among, Corr, MucmmConfig, Start
from mmpretrain.methods.settings.siglip import SiglipConfig
from mmpretrain.methods.settings.supcon import SupconConfig

__all__ = [
    "METHODS",
    "Among",
    "ClipConfig",
    "CmcrConfig",
    "CommConfig",
    "Condition",
    "Corr",
    "CriticBatch",
    "CriticForm",
    "CrossInputs",
    "CrossLoss",
    "CrossSelfConfig",
    "FactorclConfig",
    "Form",
    "LabelInput",
    "M3colConfig",
    "MethodConfig",
    "MixLevel",
    "MixScope",
    "MucmmConfig",
    "Pairing",
    "Passes",
    "SiglipConfig",
    "Start",
    "SupconConfig",
    "Terms",
]

METHODS: dict[str, type[MethodConfig]] = {
    "clip": ClipConfig,
    "cmcr": CmcrConfig,
    "comm": CommConfig,
    "cross_self": CrossSelfConfig,
    "factorcl": FactorclConfig,
    "m3col": M3colConfig,
    "mucmm": MucmmConfig,
    "siglip": SiglipConfig,
    "supcon": SupconConfig,
}
