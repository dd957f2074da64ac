"""From a config to a method with its freshly initialized (or pretrained) model."""

from __future__ import annotations

from mmpretrain.assembly.build import build_model, build_processor
from mmpretrain.assembly.sources import EncoderSources
from mmpretrain.config.root import Config
from mmpretrain.data.augment import Augmenter
from mmpretrain.methods import method_class
from mmpretrain.methods.base import Method
from mmpretrain.models.processing_mmpretrain import MMPretrainProcessor


def build_method(
    config: Config, processor: MMPretrainProcessor | None = None, sources: EncoderSources | None = None
) -> Method:
    """The method that ``config`` names; weights are drawn from torch's global generator, which the caller seeds.

    processor, sources: the run's, if they are there already.
    """
    sources = sources or EncoderSources(config)
    augmenter = Augmenter(config, processor or build_processor(config, sources))
    return method_class(config.method.name)(config, build_model(config, sources), augmenter)
