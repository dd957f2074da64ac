"""From a config to a method with its freshly initialized (or pretrained) model."""

from __future__ import annotations

from mmpretrain.assembly.build import build_model
from mmpretrain.config.root import Config
from mmpretrain.methods import method_class
from mmpretrain.methods.base import Method


def build_method(config: Config) -> Method:
    """The method that ``config`` names; weights are drawn from torch's global generator, which the caller seeds."""
    return method_class(config.method.name)(config, build_model(config))
