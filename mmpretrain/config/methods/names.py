"""Hyper-parameters of every method by name (no torch here). ``method.name`` selects the class."""

from __future__ import annotations

from mmpretrain.config.methods.base import MethodConfig
from mmpretrain.config.methods.clip import ClipConfig
from mmpretrain.config.methods.cmcr import CmcrConfig, Passes
from mmpretrain.config.methods.comm import CommConfig, Pairing, Terms
from mmpretrain.config.methods.comm_supervised import CommSupervisedConfig, SupervisedLoss
from mmpretrain.config.methods.cross_self import CrossInputs, CrossLoss, CrossSelfConfig
from mmpretrain.config.methods.factorcl import (
    Condition,
    CriticBatch,
    CriticForm,
    CriticInit,
    FactorclConfig,
    LabelInput,
    Supervision,
)
from mmpretrain.config.methods.m3col import M3colConfig, MixLevel, MixScope
from mmpretrain.config.methods.mucmm import Among, Corr, MucmmConfig, Start
from mmpretrain.config.methods.siglip import SiglipConfig
from mmpretrain.config.methods.supcon import SupconConfig

__all__ = [
    "METHODS",
    "Among",
    "ClipConfig",
    "CmcrConfig",
    "CommConfig",
    "CommSupervisedConfig",
    "Condition",
    "Corr",
    "CriticBatch",
    "CriticForm",
    "CriticInit",
    "CrossInputs",
    "CrossLoss",
    "CrossSelfConfig",
    "FactorclConfig",
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
    "SupervisedLoss",
    "Supervision",
    "Terms",
]

METHODS: dict[str, type[MethodConfig]] = {
    "clip": ClipConfig,
    "cmcr": CmcrConfig,
    "comm": CommConfig,
    "comm_supervised": CommSupervisedConfig,
    "cross_self": CrossSelfConfig,
    "factorcl": FactorclConfig,
    "m3col": M3colConfig,
    "mucmm": MucmmConfig,
    "siglip": SiglipConfig,
    "supcon": SupconConfig,
}
