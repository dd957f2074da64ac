"""Encoders of transformers, new or pretrained: safetensors only, and never code of a model's folder."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import CONFIG_MAPPING, MODEL_MAPPING, AutoConfig, AutoModel, PreTrainedConfig
from transformers.utils import cached_file

from mmpretrain.assembly.encoder_source import EncoderSource
from mmpretrain.assembly.own_architectures import check_keywords
from mmpretrain.assembly.pooling import SENTENCE_POOLING, default_pool, pool_of_sentences
from mmpretrain.assembly.preprocessing import image_preparation
from mmpretrain.assembly.sounds import made_extractor, open_extractor, settled, sound_pool, sound_sizes
from mmpretrain.assembly.tokenizers import vocabulary_size
from mmpretrain.config.architectures import ARCHITECTURES, TRANSFORMERS_POOLS, Pool
from mmpretrain.config.data import Kind, ModalityConfig
from mmpretrain.config.model import EncoderConfig
from mmpretrain.models.audio_mmpretrain import audio_class, audio_part
from mmpretrain.models.encoders_mmpretrain import backbone_config, output_width, pooling_arguments
from mmpretrain.models.modeling_mmpretrain import MMPretrainModel
from mmpretrain.problems import UnusableError, cannot_open, nearest, one_line
from mmpretrain.words import listed

# Where a config came from, how it was stored, and labels that an encoder has no use for: not the architecture.
_INCIDENTAL = {"_name_or_path", "architectures", "auto_map", "dtype", "id2label", "label2id", "problem_type"}
_INCIDENTAL |= {"torch_dtype", "transformers_version"}
# Encoders of square images, whose size is the number of pixels of a side.
_SQUARE = {"clip_vision_model", "siglip_vision_model"}
# Encoders that take images of other sizes than their config names, which is that of their positions, if they have any.
_ANY_SIZE = {"convnext", "convnextv2", "dinov2", "dinov2_with_registers", "dinov3_convnext", "dinov3_vit"}
# Models with a tower per kind, as CLIP and SigLIP are: where the config of a tower lies.
_TOWERS = {Kind.image: "vision_config", Kind.text: "text_config"}
# Text encoders whose own pooling reads the last place of a text, padding or not: all places are to be seen.
_UNMASKED = {"siglip_text_model"}


class TransformersEncoder(EncoderSource):
    """A new encoder of any ``model_type`` of transformers."""

    def specification(self, tokenizer: Any | None) -> dict[str, Any]:
        """See :class:`EncoderSource`."""
        return self.specification_checking(self.encoder.config, tokenizer)

    def specification_checking(self, asked: Mapping[str, Any], tokenizer: Any | None) -> dict[str, Any]:
        """As :meth:`specification`; ``asked`` is the part of the encoder's config that a person wrote, and may have
        misspelled."""
        config_class = self._config_class()
        check_keywords(self.where, asked, keywords(config_class))
        sizes = _sizes_from_data(config_class, self.modality, tokenizer)
        if self.modality.kind.row.extracted:
            sizes |= {k: v for k, v in sound_sizes(self.feature_extractor).items() if k in keywords(config_class)}
        return self._entry(config_class, sizes)

    def brought_extractor(self) -> Any:
        """See :class:`EncoderSource`."""
        return made_extractor(self.where, str(self.encoder.architecture), self.encoder.config, self.modality)

    def _entry(self, config_class: type[PreTrainedConfig], given: dict[str, Any]) -> dict[str, Any]:
        """``given`` and over it what the run's config says, as an entry of the model's config."""
        sounds = self.modality.kind.row.extracted
        if sounds:
            given |= settled(self.where, self.encoder.config, keywords(config_class))
        try:
            config = config_class.from_dict(given | self.encoder.config)
        except Exception as error:  # Validators of config classes raise types of their own.
            raise UnusableError([f"{self.where}.config: {one_line(error)}"]) from error
        usual = self._pool_there() or default_pool(config, self.modality.kind)
        pool = self.encoder.pool or (sound_pool(config.model_type, self.encoder) if sounds else usual)
        if problems := _mismatches(self.name, config, pool, self.modality):
            raise UnusableError(problems)
        return architecture_entry(config, pool)

    def _pool_there(self) -> Pool | None:
        """What weights that are brought were trained with, if their folder says it."""
        return None

    def _config_class(self) -> type[PreTrainedConfig]:
        architecture = str(self.encoder.architecture)
        if architecture not in CONFIG_MAPPING:
            hint = nearest(architecture, [*CONFIG_MAPPING.keys(), *ARCHITECTURES])
            raise UnusableError([f"{self.where}.architecture is {architecture}: no such transformers model_type{hint}"])
        config_class = CONFIG_MAPPING[architecture]
        if config_class not in MODEL_MAPPING and audio_class(config_class) is None:
            raise UnusableError([f"{self.where}.architecture is {architecture}: transformers has no AutoModel for it"])
        return config_class


class PretrainedEncoder(TransformersEncoder):
    """An encoder of transformers with the weights of ``pretrained``, a folder or a Hub id.

    config: the one that lies there.
    """

    def __init__(self, name: str, encoder: EncoderConfig, modality: ModalityConfig, config: PreTrainedConfig) -> None:
        super().__init__(name, encoder, modality)
        # Of a model with a tower for sounds, as CLAP is, this tower.
        self._whole = config if modality.kind.row.extracted and hasattr(config, "audio_config") else None
        self.config: PreTrainedConfig = _tower(config, modality.kind) if self._whole is None else config.audio_config

    def specification(self, tokenizer: Any | None) -> dict[str, Any]:
        """See :class:`EncoderSource`."""
        if not self.modality.kind.row.transformers_models:
            raise UnusableError(
                [
                    f"{self.where}.pretrained: {self.encoder.pretrained} is not an mmpretrain release, and no other"
                    f" model encodes a {self.modality.kind.value}"
                ]
            )
        if type(self.config) not in MODEL_MAPPING and audio_class(self.config) is None:
            raise UnusableError(
                [f"{self.where}.pretrained: transformers has no AutoModel for a {self.config.model_type}"]
            )
        check_keywords(self.where, self.encoder.config, keywords(type(self.config)))
        return self._entry(type(self.config), self.config.to_dict())

    def brought_extractor(self) -> Any:
        """See :class:`EncoderSource`."""
        return open_extractor(f"{self.where}.pretrained", str(self.encoder.pretrained), self.encoder.revision)

    def input_statistics(self) -> dict[str, Any] | None:
        """Mean and standard deviation per channel, and how images are resized, if the folder says so."""
        where, reading = f"{self.where}.pretrained: {self.encoder.pretrained}", self.modality
        return image_preparation(where, self._preprocessor, reading.size, reading.channels) or None

    def _pool_there(self) -> Pool | None:
        """See :class:`TransformersEncoder`; of texts."""
        return pool_of_sentences(self._json(SENTENCE_POOLING)) if self.modality.kind.row.tokenized else None

    def load(self, model: MMPretrainModel, specification: dict[str, Any]) -> None:
        """See :class:`EncoderSource`; the weights come in float32, and none may be missing or misfit."""
        model.encoders[self.name].backbone = self._backbone(specification)

    def _backbone(self, specification: dict[str, Any]) -> nn.Module:
        config, source = backbone_config(specification), str(self.encoder.pretrained)
        try:
            model_class: Any = AutoModel if self._whole else audio_class(config) or AutoModel
            model, info = model_class.from_pretrained(
                source,
                revision=self.encoder.revision or "main",
                config=self._with(config),
                dtype=torch.float32,
                use_safetensors=True,
                trust_remote_code=False,
                output_loading_info=True,
                **pooling_arguments(config, specification["pool"]),
            )
        except (OSError, ValueError, RuntimeError) as error:
            raise UnusableError(
                [f"{self.where}.pretrained: {source!r} cannot be loaded ({one_line(error)})"]
            ) from error
        lacking = sorted(str(key) for key in info["missing_keys"])
        if lacking:
            raise UnusableError([f"{self.where}.pretrained: {source!r} has no weights for {listed(lacking, 5)}"])
        return model.audio_model if self._whole else audio_part(model, config)

    def _with(self, config: PreTrainedConfig) -> PreTrainedConfig:
        """The config of what lies in the folder, with that of the encoder in its place."""
        if self._whole is None:
            return config
        whole = copy.deepcopy(self._whole)
        whole.audio_config = config
        return whole

    @cached_property
    def _preprocessor(self) -> dict[str, Any]:
        # Newer releases of transformers write what a processor is made of into one file.
        return self._json("preprocessor_config.json") or self._json("processor_config.json").get("image_processor", {})

    def _json(self, name: str) -> dict[str, Any]:
        """What a file beside the weights says; nothing if there is none."""
        path = cached_file(
            str(self.encoder.pretrained),
            name,
            revision=self.encoder.revision or "main",
            _raise_exceptions_for_missing_entries=False,
        )
        found: dict[str, Any] = json.loads(Path(path).read_text(encoding="utf-8")) if path else {}
        return found


def _tower(config: PreTrainedConfig, kind: Kind) -> PreTrainedConfig:
    """Of a model with towers the config of the one for this kind, of all others their own."""
    if not all(hasattr(config, name) for name in _TOWERS.values()) or getattr(config, "hidden_size", None):
        return config
    return getattr(config, _TOWERS[kind]) if kind in _TOWERS else config


def open_config(where: str, source: str, revision: str | None) -> PreTrainedConfig:
    """The config in a folder or on the Hub, of a transformers model or a release. where: the encoder's key.

    Raises UnusableError if it cannot be opened, or has weights of other formats than safetensors only.
    """
    try:
        config = AutoConfig.from_pretrained(source, revision=revision or "main", trust_remote_code=False)
    except Exception as error:  # Damaged files raise whatever their parser raises.
        raise cannot_open(f"{where}.pretrained", source, error) from error
    if Path(source).is_dir() and not any(Path(source).glob("*.safetensors")):
        raise UnusableError(
            [f"{where}.pretrained: {source} has no .safetensors file, and other formats are never loaded"]
        )
    return config


def architecture_entry(config: PreTrainedConfig, pool: Pool, masked: bool | None = None) -> dict[str, Any]:
    """The entry of ``MMPretrainConfig.encoders`` for a transformers config. masked: whether it is told which tokens are
    padding; None: as its architecture was trained."""
    # As JSON gives it back: the model is built from the same values before saving and after loading.
    content = json.loads(json.dumps({key: v for key, v in config.to_dict().items() if key not in _INCIDENTAL}))
    if masked is None:
        masked = config.model_type not in _UNMASKED or pool is not Pool.pooler
    unmasked = {} if masked else {"masked": False}
    return {"architecture": config.model_type, "config": content, "pool": pool.value, **unmasked}


def keywords(config_class: type[PreTrainedConfig]) -> set[str]:
    """Every keyword that a transformers config class takes, its aliases included."""
    names = {field.name for field in dataclasses.fields(config_class)} | set(config_class.attribute_map)
    for parent in config_class.__mro__[:-1]:
        names |= set(inspect.signature(parent.__init__).parameters)  # type: ignore[misc]
    return names - {"self", "args", "kwargs"}


def _sizes_from_data(config_class: type, modality: ModalityConfig, tokenizer: Any | None) -> dict[str, Any]:
    found = {keyword: getattr(modality, key) for keyword, key in modality.kind.row.transformers_sizes.items()}
    found = {keyword: list(value) if isinstance(value, Sequence) else value for keyword, value in found.items()}
    if tokenizer is not None:
        found |= {"vocab_size": vocabulary_size(tokenizer), "pad_token_id": tokenizer.pad_token_id}
        found |= _framing(config_class, tokenizer, found["vocab_size"])
    if getattr(config_class, "model_type", "") in _SQUARE and len(set(found.get("image_size", ()))) == 1:
        found["image_size"] = found["image_size"][0]
    known = keywords(config_class)
    return {key: value for key, value in found.items() if key in known}


def _framing(config_class: type, tokenizer: Any, size: int) -> dict[str, int]:
    """The tokenizer's ids of start and end, where those that the architecture has by default lie outside of its
    vocabulary: transformers warns of them whenever the model is opened, and CLIP's pooler looks for the end. Tokenizers
    that call them otherwise have BERT's names."""
    usual, found = config_class(), dict[str, int]()
    for key, other in (("bos_token_id", "cls_token_id"), ("eos_token_id", "sep_token_id")):
        default, own = getattr(usual, key, None), getattr(tokenizer, key)
        own = getattr(tokenizer, other) if own is None else own
        if isinstance(default, int) and default >= size and own is not None:
            found[key] = own
    return found


def _mismatches(name: str, config: PreTrainedConfig, pool: Pool, modality: ModalityConfig) -> list[str]:
    where = f"model.encoders.{name}"
    found = []
    try:
        output_width(config, pool.value)
    except ValueError as error:
        found.append(f"{where}: {error}")
    if pool not in TRANSFORMERS_POOLS:
        found.append(f"{where}.pool is {pool}: {config.model_type} knows {', '.join(TRANSFORMERS_POOLS)}")
    if "image_size" in modality.kind.row.transformers_sizes:
        found += _image_mismatches(name, config, modality)
    return found


def _image_mismatches(name: str, config: PreTrainedConfig, modality: ModalityConfig) -> list[str]:
    where, found = f"model.encoders.{name}", []
    size, patch = _pair(getattr(config, "image_size", None)), _pair(getattr(config, "patch_size", None))
    if config.model_type in _ANY_SIZE:
        size = list(modality.size)
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
