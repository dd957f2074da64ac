"""From the run's config to the model that trains and ships, and the processor that feeds it."""

from __future__ import annotations

import math
from typing import Any

from mmpretrain.assembly.lora import add_adapters
from mmpretrain.assembly.sources import EncoderSources
from mmpretrain.assembly.specs import model_config
from mmpretrain.assembly.tokenizers import text_problems
from mmpretrain.assembly.training_options import set_options
from mmpretrain.config.data import ModalityConfig
from mmpretrain.config.root import Config
from mmpretrain.data.info import dataset_info
from mmpretrain.models.modeling_mmpretrain import MMPretrainModel
from mmpretrain.models.processing_mmpretrain import MMPretrainProcessor
from mmpretrain.problems import UnusableError


def build_model(config: Config, sources: EncoderSources | None = None) -> MMPretrainModel:
    """The model in float32 and training mode, its weights pretrained or random from torch's current seed.

    Encoders with ``freeze`` take no gradients, and of those with LoRA the adapters alone do. sources: the run's, if
    they were asked before. Raises UnusableError (a ValueError) if the config does not fit together, pretrained weights
    cannot be loaded whole, or an encoder cannot train the way it is asked to.
    """
    sources = sources or EncoderSources(config)
    tokenizers = {name: source.tokenizer for name, source in sources.items()}
    specs = {name: source.specification(tokenizers[name]) for name, source in sources.items()}
    model = MMPretrainModel(model_config(config, specs, sources))
    for name, tokenizer in tokenizers.items():
        if tokenizer is None:
            continue
        length = config.data.modalities[name].max_length
        backbone = model.get_submodule(f"encoders.{name}.backbone")
        if problems := text_problems(name, backbone, length, tokenizer):
            raise UnusableError(problems)
    for name, source in sources.items():
        source.load(model, specs[name])
    for source in sources.values():
        source.freeze(model)
    add_adapters(config, model)
    model.train()
    for name, source in sources.items():
        set_options(source.where, source.encoder, model.get_submodule(f"encoders.{name}.backbone"))
    return model


def build_processor(config: Config, sources: EncoderSources | None = None) -> MMPretrainProcessor:
    """The processor: tokenizers from the encoders, statistics from pretrained ones or the dataset.

    sources: as for :func:`build_model`. Raises ValueError if a tokenizer cannot be opened or the statistics do not fit
    the modality.
    """
    sources = sources or EncoderSources(config)
    info = dataset_info(config.data)
    of_data = info.statistics if info else {}
    modalities: dict[str, dict[str, Any]] = {}
    for name, modality in config.data.modalities.items():
        row = modality.kind.row
        entry: dict[str, Any] = {"kind": modality.kind.value}
        for key in row.described_by:
            value = getattr(modality, key)
            entry[key] = list(value) if key == "size" else value
        statistics = sources[name].input_statistics() if name in sources else None
        if statistics is None and row.data_statistics:
            statistics = of_data.get(name)
        brought = {key: value for key, value in (statistics or {}).items() if key in row.statistics}
        entry |= _prepared(modality, brought)
        if name in sources and (form := sources[name].sound_form) is not None:
            entry |= form._asdict()
        if modality.optional:
            entry["optional"] = True
        modalities[name] = entry
    tokenizers = {name: source.tokenizer for name, source in sources.items() if source.tokenizer is not None}
    extractors = {name: s.feature_extractor for name, s in sources.items() if s.feature_extractor is not None}
    return MMPretrainProcessor(modalities, tokenizers, extractors)


def _prepared(modality: ModalityConfig, brought: dict[str, Any]) -> dict[str, Any]:
    """What pretrained weights bring, and over it how the config wants samples to be prepared."""
    usual = modality.kind.row.preparation
    asked = {key: str(getattr(modality, key)) for key in usual if getattr(modality, key) is not None}
    found = {**usual, **brought, **asked}
    if found.get("resize") != "crop":
        found.pop("shortest_edge", None)  # which is that of a crop
    return found


def build_unaugmented_processor(config: Config, processor: MMPretrainProcessor) -> MMPretrainProcessor | None:
    """As :func:`unaugmented_processor`; None where nothing augments anything, too."""
    if not (config.method.augments or any(modality.train for modality in config.data.modalities.values())):
        return None
    return unaugmented_processor(config, processor)


def unaugmented_processor(config: Config, processor: MMPretrainProcessor) -> MMPretrainProcessor | None:
    """The processor of what augmentations start from: images with a ``load_size``, at that size, and waveforms.

    processor: the run's. None if there are none of these.
    """
    modalities = config.data.modalities
    apart = {name: modality for name, modality in modalities.items() if modality.prepared_apart}
    entries = {name: _apart(processor.modalities[name], modality) for name, modality in apart.items()}
    return MMPretrainProcessor(entries) if entries else None


def _apart(entry: dict[str, Any], modality: ModalityConfig) -> dict[str, Any]:
    """An entry for what augmentations start from."""
    if modality.load_size is not None:
        return _larger(entry, modality.load_size)
    return entry | {"waveform": True, "seconds": max(modality.load_seconds or 0, entry["seconds"])}


def _larger(entry: dict[str, Any], size: list[int]) -> dict[str, Any]:
    """An image's entry at another size; of the image it shows as much, or less where the proportions differ."""
    if (edge := entry.get("shortest_edge")) is None:
        return entry | {"size": list(size)}
    edges = [math.ceil(edge * larger / smaller) for larger, smaller in zip(size, entry["size"], strict=True)]
    return entry | {"size": list(size), "shortest_edge": max(edges)}
