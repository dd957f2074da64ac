"""From the run's config to the model that trains and ships, and the processor that feeds it (not shipped)."""

from __future__ import annotations

import math
from typing import Any

from mmpretrain.assembly.release_encoder import freeze, input_statistics, load_weights
from mmpretrain.assembly.specs import encoded, encoder_spec, model_config
from mmpretrain.assembly.tokenizers import load_tokenizers, text_problems
from mmpretrain.assembly.training_options import set_options
from mmpretrain.config.data import Kind
from mmpretrain.config.root import Config
from mmpretrain.data.info import dataset_info
from mmpretrain.models.modeling_mmpretrain import MMPretrainModel
from mmpretrain.models.processing_mmpretrain import MMPretrainProcessor
from mmpretrain.problems import UnusableError


def build_model(config: Config) -> MMPretrainModel:
    """The model in float32 and training mode, its weights pretrained or random from torch's current seed.

    Encoders with ``freeze`` take no gradients. Raises UnusableError (a ValueError) if the config does not fit together,
    pretrained weights cannot be loaded whole, or an encoder cannot train the way it is asked to.
    """
    tokenizers = load_tokenizers(config)
    specs = {
        name: encoder_spec(name, config.model.encoders[name], modality, tokenizers.get(name))
        for name, modality in encoded(config).items()
    }
    model = MMPretrainModel(model_config(config, specs))
    for name, tokenizer in tokenizers.items():
        length = config.data.modalities[name].max_length
        backbone = model.get_submodule(f"encoders.{name}.backbone")
        if problems := text_problems(name, backbone, length, tokenizer):
            raise UnusableError(problems)
    for name, encoder in config.model.encoders.items():
        load_weights(model, name, encoder, specs[name])
    freeze(model, config)
    model.train()
    for name, encoder in config.model.encoders.items():
        set_options(f"model.encoders.{name}", encoder, model.get_submodule(f"encoders.{name}.backbone"))
    return model


def build_processor(config: Config) -> MMPretrainProcessor:
    """The processor: tokenizers from the encoders, statistics of vectors from pretrained ones or the dataset.

    Raises ValueError if a tokenizer cannot be opened or the statistics do not fit the modality.
    """
    info = dataset_info(config.data)
    statistics = info.statistics if info else {}
    modalities: dict[str, dict[str, Any]] = {}
    for name, modality in config.data.modalities.items():
        entry: dict[str, Any] = {"kind": modality.kind.value}
        encoder = config.model.encoders.get(name)  # embeddings that are connected have none
        expected = input_statistics(name, encoder) if encoder else None
        if modality.kind is Kind.text:
            entry |= {"max_length": modality.max_length}
        elif modality.kind is Kind.image:
            entry |= {"size": list(modality.size), "channels": modality.channels}
            entry |= expected or {}
        elif modality.kind is Kind.vector:
            entry |= {"size": list(modality.size), **(statistics.get(name, {}) if expected is None else expected)}
        else:
            entry |= {"size": list(modality.size)}
        if modality.optional:
            entry["optional"] = True
        modalities[name] = entry
    return MMPretrainProcessor(modalities, load_tokenizers(config))


def build_sources(config: Config, processor: MMPretrainProcessor) -> MMPretrainProcessor | None:
    """The processor of what augmentations start from: images with a ``load_size``, at that size.

    processor: the run's. None if there are no such images, or nothing augments them.
    """
    modalities = config.data.modalities
    sizes = {name: modality.load_size for name, modality in modalities.items() if modality.load_size is not None}
    if not sizes or not (config.method.augments or any(modality.train for modality in modalities.values())):
        return None
    return MMPretrainProcessor({name: _larger(processor.modalities[name], size) for name, size in sizes.items()})


def _larger(entry: dict[str, Any], size: list[int]) -> dict[str, Any]:
    """An image's entry at another size; of the image it shows as much, or less where the proportions differ."""
    if (edge := entry.get("shortest_edge")) is None:
        return entry | {"size": list(size)}
    edges = [math.ceil(edge * larger / smaller) for larger, smaller in zip(size, entry["size"], strict=True)]
    return entry | {"size": list(size), "shortest_edge": max(edges)}
