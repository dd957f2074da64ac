"""From the run's config to each encoder's full entry in the model's config (not shipped)."""

from __future__ import annotations

import dataclasses
import inspect
import json
from dataclasses import asdict
from typing import Any

from transformers import CONFIG_MAPPING, MODEL_MAPPING, PreTrainedConfig

from mmpretrain.assembly.own_architectures import check_keywords, own_config
from mmpretrain.assembly.pretrained import load_config
from mmpretrain.assembly.release_encoder import find_tower
from mmpretrain.assembly.tokenizers import vocabulary_size
from mmpretrain.config.data import Kind, ModalityConfig
from mmpretrain.config.methods.cmcr import PARTNER, SHARED
from mmpretrain.config.model import OWN_POOLS, POOLS, TRANSFORMERS_KINDS, ConnectedSpace, EncoderConfig, Pool
from mmpretrain.config.root import Config
from mmpretrain.data.info import dataset_info
from mmpretrain.models.configuration_mmpretrain import MMPretrainConfig
from mmpretrain.models.encoders_mmpretrain import output_width, state_form
from mmpretrain.models.pooling_mmpretrain import StateForm
from mmpretrain.problems import UnusableError, nearest, one_line

# Where a config came from, how it was stored, and labels that an encoder has no use for: not the architecture.
_INCIDENTAL = {"_name_or_path", "architectures", "auto_map", "dtype", "id2label", "label2id", "problem_type"}
_INCIDENTAL |= {"torch_dtype", "transformers_version"}


def encoder_spec(name: str, encoder: EncoderConfig, modality: ModalityConfig, tokenizer: Any | None) -> dict[str, Any]:
    """The entry of ``MMPretrainConfig.encoders`` for one modality; sizes not given are taken from the data.

    tokenizer: the text modality's (None: not at hand yet, the architecture's own vocabulary size stands).
    Raises UnusableError with everything that is wrong.
    """
    where, asked = f"model.encoders.{name}", encoder.config
    if tower := find_tower(name, encoder):
        encoder = tower.by_architecture(modality)
    elif encoder.pretrained and modality.kind not in TRANSFORMERS_KINDS:
        raise UnusableError(
            [
                f"{where}.pretrained: {encoder.pretrained} is no release of ours, and no other model encodes a"
                f" {modality.kind.value}"
            ]
        )
    if encoder.architecture in OWN_POOLS:
        own = own_config(where, encoder, modality)
        pool = encoder.pool or OWN_POOLS[str(encoder.architecture)][0]
        return {"architecture": encoder.architecture, "config": own, "pool": pool.value}
    base: PreTrainedConfig | None = load_config(where, encoder) if encoder.pretrained else None
    config_class = type(base) if base is not None else _config_class(where, str(encoder.architecture))
    check_keywords(where, asked, keywords(config_class))
    given = base.to_dict() if base is not None else _sizes_from_data(config_class, modality, tokenizer)
    try:
        config = config_class.from_dict(given | encoder.config)
    except Exception as error:  # Validators of config classes raise types of their own.
        raise UnusableError([f"{where}.config: {one_line(error)}"]) from error
    if problems := _mismatches(name, config, encoder, modality):
        raise UnusableError(problems)
    return architecture_entry(config, _pooling(encoder, config))


def _pooling(encoder: EncoderConfig, config: PreTrainedConfig) -> Pool:
    """``encoder.pool``, or the default for this architecture of transformers: a feature map has no first token."""
    return encoder.pool or (Pool.mean if state_form(config) is StateForm.map else Pool.cls)


def architecture_entry(config: PreTrainedConfig, pool: Pool) -> dict[str, Any]:
    """The entry of ``MMPretrainConfig.encoders`` for a transformers config."""
    # As JSON gives it back: the model is built from the same values before saving and after loading.
    content = json.loads(json.dumps({key: v for key, v in config.to_dict().items() if key not in _INCIDENTAL}))
    return {"architecture": config.model_type, "config": content, "pool": pool.value}


def encoded(config: Config) -> dict[str, ModalityConfig]:
    """The modalities that have an encoder, in the order of the data; embeddings that are connected have none."""
    return {} if config.method.connects else config.data.modalities


def model_config(config: Config, specs: dict[str, dict[str, Any]]) -> MMPretrainConfig:
    """The model's config around ``specs``; with a classifier if the method learns from labels, and nothing but the
    projectors if it connects spaces.

    Raises ShardError if the dataset's ``dataset.json`` is damaged.
    """
    if config.method.connects:
        return _connection_config(config)
    labels: dict[str, Any] = {}
    if config.method.classifies:
        info = dataset_info(config.data)
        names = (info.classes if info else None) or []
        labels = {"classifier_hidden": config.model.classifier_hidden, "num_labels": config.data.classes}
        if len(names) == config.data.classes:
            labels |= {"id2label": dict(enumerate(names)), "label2id": {name: i for i, name in enumerate(names)}}
    return MMPretrainConfig(
        encoders=specs,
        modalities=list(specs),
        embed_dim=None if config.method.fuses else config.model.embed_dim,
        method=config.method.name,
        fusion=config.model.fusion.arguments() if config.method.fuses else None,
        factors=asdict(config.model.factors) if config.method.factorizes else None,
        components=config.model.components.arguments(specs) if config.method.decomposes else None,
        **labels,
    )


def _connection_config(config: Config) -> MMPretrainConfig:
    """The projectors as ``config.model.projectors`` says; sizes not given are taken from the data."""
    settings = config.model.projectors
    widths = {space: config.data.modalities[SHARED[space]].size[0] for space in ConnectedSpace}
    inputs = {name: space.value for names in (SHARED, PARTNER) for space, name in names.items()}
    connection = {
        **{key: getattr(value, "value", value) for key, value in asdict(settings).items()},
        "hidden": settings.hidden or 2 * widths[ConnectedSpace.first],
        "width": settings.width or widths[settings.unprojected or ConnectedSpace.first],
        "spaces": {space.value: {"width": width} for space, width in widths.items()},
        "inputs": {name: inputs[name] for name in config.data.modalities},
    }
    return MMPretrainConfig(modalities=list(config.data.modalities), method=config.method.name, connection=connection)


def keywords(config_class: type[PreTrainedConfig]) -> set[str]:
    """Every keyword that a transformers config class takes, its aliases included."""
    names = {field.name for field in dataclasses.fields(config_class)} | set(config_class.attribute_map)
    for parent in config_class.__mro__[:-1]:
        names |= set(inspect.signature(parent.__init__).parameters)  # type: ignore[misc]
    return names - {"self", "args", "kwargs"}


def _config_class(where: str, architecture: str) -> type[PreTrainedConfig]:
    if architecture not in CONFIG_MAPPING:
        hint = nearest(architecture, [*CONFIG_MAPPING.keys(), *OWN_POOLS])
        raise UnusableError([f"{where}.architecture is {architecture}: no such transformers model_type{hint}"])
    config_class = CONFIG_MAPPING[architecture]
    if config_class not in MODEL_MAPPING:
        raise UnusableError([f"{where}.architecture is {architecture}: transformers has no AutoModel for it"])
    return config_class


def _sizes_from_data(config_class: type, modality: ModalityConfig, tokenizer: Any | None) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if modality.kind is Kind.image:
        found = {"image_size": list(modality.size), "num_channels": modality.channels}
    elif modality.kind is Kind.text and tokenizer is not None:
        found = {"vocab_size": vocabulary_size(tokenizer), "pad_token_id": tokenizer.pad_token_id}
    known = keywords(config_class)
    return {key: value for key, value in found.items() if key in known}


def _mismatches(name: str, config: PreTrainedConfig, encoder: EncoderConfig, modality: ModalityConfig) -> list[str]:
    where, pool = f"model.encoders.{name}", _pooling(encoder, config)
    found = []
    try:
        output_width(config, pool.value)
    except ValueError as error:
        found.append(f"{where}: {error}")
    if pool not in POOLS:
        found.append(f"{where}.pool is {pool}: {config.model_type} knows {', '.join(POOLS)}")
    if modality.kind is not Kind.image:
        return found
    size, patch = _pair(getattr(config, "image_size", None)), _pair(getattr(config, "patch_size", None))
    if size and size != list(modality.size):
        found.append(f"{where} expects images of {size} pixels: set data.modalities.{name}.size={size}")
    if size and patch and (size[0] % patch[0] or size[1] % patch[1]):
        found.append(f"{where}: patches of {patch} pixels do not tile images of {size}: change config.patch_size")
    channels = getattr(config, "num_channels", modality.channels)
    if channels != modality.channels:
        found.append(f"{where} expects {channels} channels: set data.modalities.{name}.channels={channels}")
    return found


def _pair(size: Any) -> list[int] | None:
    if size is None:
        return None
    return [size, size] if isinstance(size, int) else list(size)
