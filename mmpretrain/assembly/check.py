"""Preflight of the model without its weights: every problem, and the number of parameters (not shipped)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from mmpretrain.assembly.encoder_source import EncoderSource
from mmpretrain.assembly.lora import adapter_notes, adapter_problems, add_adapters
from mmpretrain.assembly.sounds import lacking_packages
from mmpretrain.assembly.sources import EncoderSources
from mmpretrain.assembly.specs import model_config
from mmpretrain.assembly.tokenizers import not_built, text_problems, tokenizer_source
from mmpretrain.assembly.training_options import option_problems
from mmpretrain.assembly.transformers_encoder import TransformersEncoder
from mmpretrain.config.data import ModalityConfig
from mmpretrain.config.engine import Precision
from mmpretrain.config.model import AttentionKernel
from mmpretrain.config.root import Config
from mmpretrain.data.index import ShardError
from mmpretrain.models.audio_mmpretrain import audio_tensors
from mmpretrain.models.encoders_mmpretrain import Encoder
from mmpretrain.models.fusion_mmpretrain import Fusion
from mmpretrain.models.modeling_mmpretrain import MMPretrainModel
from mmpretrain.models.pooling_mmpretrain import StateForm
from mmpretrain.problems import UnusableError, one_line


class Checked(NamedTuple):
    """problems, notes: one sentence each. model: on the meta device, None if there are problems."""

    problems: list[str]
    notes: list[str]
    model: MMPretrainModel | None


def check_model(config: Config, sources: EncoderSources | None = None) -> Checked:
    """Build the model on the meta device, weights aside. Nothing is raised.

    sources: the run's, if they were asked before. Notes hold the parameters per encoder and in all, and what a command
    has still to build.
    """
    sources = sources or EncoderSources(config)
    problems: list[str] = []
    notes: list[str] = []
    specs = {}
    for name in sources:
        try:
            source = sources[name]
        except UnusableError as error:
            problems += [*_beside(name, config, notes), *error.problems]
            continue
        try:
            specs[name] = _check_encoder(source, config, problems, notes)
        except UnusableError as error:
            problems += error.problems
    model = None if problems else _check_whole(config, specs, sources, problems, notes)
    return Checked(problems, notes, None if problems else model)


def _beside(name: str, config: Config, notes: list[str]) -> list[str]:
    """What is wrong with the tokenizer of an encoder whose source cannot be opened, if it is another one's."""
    encoder = config.model.encoders[name]
    if not encoder.tokenizer or hasattr(nn.ModuleDict, name):
        return []
    alone = TransformersEncoder(name, replace(encoder, pretrained=None), config.data.modalities[name])
    problems: list[str] = []
    _tokenizer(alone, config, problems, notes)
    return problems


def _check_encoder(source: EncoderSource, config: Config, problems: list[str], notes: list[str]) -> dict[str, Any]:
    """The encoder's entry; what is wrong with it is raised, or added to ``problems``."""
    name = source.name
    if hasattr(nn.ModuleDict, name):
        raise UnusableError([f"data.modalities.{name}: torch needs this name for itself, choose another one"])
    entry, modality = source.encoder, source.modality
    if lacking := lacking_packages(name, modality):
        raise UnusableError(lacking)
    tokenizer = _tokenizer(source, config, problems, notes)
    spec = source.specification(tokenizer)
    encoder = _on_meta(name, spec)
    if modality.kind.row.resized:
        _try_images(name, encoder, modality, config.fuses_tokens)
    if modality.kind.row.extracted:
        _try_sounds(source, encoder, config.fuses_tokens)
    if modality.kind.row.tokenized:
        problems += text_problems(name, encoder.backbone, modality.max_length, tokenizer)
    problems += source.problems(encoder)
    problems += option_problems(source.where, entry, encoder.backbone)
    problems += (lacking := adapter_problems(config, name, encoder.backbone))
    if entry.attention is AttentionKernel.flash_attention_2 and config.engine.precision is Precision.float32:
        problems.append(f"{source.where}.attention is flash_attention_2: it needs engine.precision=bfloat16")
    scalars = [key for key, parameter in encoder.named_parameters() if parameter.ndim == 0]
    if scalars:
        problems.append(f"{source.where}: DeepSpeed cannot hold parameters of shape () ({', '.join(scalars)})")
    origin = f"{spec['architecture']} from {entry.pretrained}" if entry.pretrained else spec["architecture"]
    notes.append(f"encoder {name}: {origin}, {_count(encoder):,} parameters{' (frozen)' if entry.freeze else ''}")
    notes += [] if lacking else adapter_notes(config, name, encoder.backbone)
    if entry.compile and config.engine.zero == 3:
        notes.append(
            f"encoder {name}: ZeRO-3 cuts a compiled encoder wherever weights are gathered; expect little gain"
        )
    return spec


def _tokenizer(source: EncoderSource, config: Config, problems: list[str], notes: list[str]) -> Any | None:
    """The tokenizer of a text; None for other kinds, while it is not built, and where it is among the problems."""
    if not source.modality.kind.row.tokenized:
        return None
    if pending := not_built(config.data, tokenizer_source(source.encoder)):
        notes.append(
            f"{pending} (until then the vocabulary of encoder {source.name} has the architecture's default size)"
        )
        return None
    try:
        return source.tokenizer
    except UnusableError as error:
        problems += error.problems
        return None


def _on_meta(name: str, spec: dict[str, Any]) -> Encoder:
    try:
        with torch.device("meta"):
            return Encoder(name, spec)
    except Exception as error:  # Every architecture refuses wrong sizes in its own way.
        reason = f"{spec['architecture']} cannot be built ({one_line(error)})"
        raise UnusableError([f"model.encoders.{name}.config: {reason}"]) from error


def _try_images(name: str, encoder: Encoder, modality: ModalityConfig, fused: bool) -> None:
    """Two images without content through the encoder: does it take this size, and is its output as wide as expected?"""
    where, shape = f"model.encoders.{name}", (2, modality.channels, *modality.size)
    try:
        images = torch.zeros(shape, device="meta")
        output = encoder.states(pixel_values=images).values if fused else encoder(pixel_values=images)
    except Exception as error:  # As above.
        if "meta" in str(error):
            return  # Some architectures look at values, of which there are none here.
        reason = f"takes no images of shape {list(shape[1:])} ({one_line(error)})"
        raise UnusableError([f"{where}.config: the encoder {reason}"]) from error
    if not fused and encoder.form is StateForm.map and encoder.pool in ("cls", "last"):
        found = "the encoder gives a feature map, which has no first and no last token"
        raise UnusableError([f"{where}.pool is {encoder.pool}, but {found}: use mean or pooler"])
    if not fused and output.shape != (2, encoder.output_size):
        raise UnusableError([f"{where}: output of shape {list(output.shape)}, expected [2, {encoder.output_size}]"])
    width = output.shape[1 if output.ndim == 4 else -1]
    if fused and (width != encoder.state_size or (output.ndim == 4 and encoder.form is not StateForm.map)):
        found = f"states of shape {list(output.shape)}, which the fusion cannot take for {encoder.form.value}"
        raise UnusableError([f"{where}: {found} of width {encoder.state_size}; choose another architecture"])


def _try_sounds(source: EncoderSource, encoder: Encoder, fused: bool) -> None:
    """Silence through the feature extractor, and in its shape through the encoder: do the two fit together?"""
    assert source.sound_form is not None
    where, entry = source.where, source.sound_form._asdict()
    silence = {"array": np.zeros(1, np.float32), "sampling_rate": entry["sampling_rate"]}
    try:
        tensors = audio_tensors(source.name, [silence, silence], entry, source.feature_extractor)
        tensors = {key: tensor.to("meta") for key, tensor in tensors.items()}
        output = encoder.states(**tensors).values if fused else encoder(**tensors)
    except Exception as error:  # As above.
        if "meta" in str(error):
            return  # As above.
        raise UnusableError(
            [f"{where}: it does not take what its feature extractor gives ({one_line(error)})"]
        ) from error
    if not fused and output.shape != (2, encoder.output_size):
        raise UnusableError([f"{where}: output of shape {list(output.shape)}, expected [2, {encoder.output_size}]"])


def _check_whole(
    config: Config,
    specs: dict[str, dict[str, Any]],
    sources: EncoderSources,
    problems: list[str],
    notes: list[str],
) -> MMPretrainModel | None:
    try:
        whole = model_config(config, specs, sources)
    except ShardError as error:
        problems.append(str(error))
        return None
    try:
        with torch.device("meta"):
            model = MMPretrainModel(whole)
    except ValueError as error:
        # Encoders were built before: what does not fit here is what sits on top.
        parts = {"fusion": whole.fusion, "components": whole.components, "projectors": whole.connection}
        on_top = next((name for name, arguments in parts.items() if arguments), "factors")
        problems.append(f"model.{on_top}: {one_line(error)}")
        return None
    for source in sources.values():
        source.freeze(model)
    try:
        add_adapters(config, model)
    except UnusableError as error:
        problems += error.problems
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    if not trained:
        problems.append("every encoder is frozen and nothing else is trainable: set freeze=false or model.embed_dim")
    notes += _sizes_on_top(config, model)
    notes.append(f"model: {_count(model):,} parameters, {trained:,} of them trained")
    return model


def _sizes_on_top(config: Config, model: MMPretrainModel) -> list[str]:
    """A note for each part beside the encoders."""
    found = []
    if model.fusion is not None:
        makes = f", {_count(model.fusion.converters):,} of them make tokens" if isinstance(model.fusion, Fusion) else ""
        found.append(f"fusion: {_count(model.fusion):,} parameters{makes}")
        if config.model.embed_dim is not None:
            found.append(f"model.embed_dim has no effect with method={config.method.name}: model.fusion.width counts")
    parts = {"factors": model.factors, "components": model.components, "projectors": model.connection}
    found += [f"{name}: {_count(part):,} parameters" for name, part in parts.items() if part]
    if model.classifier is not None:
        found.append(f"classifier: {_count(model.classifier):,} parameters, {model.config.num_labels} classes")
    return found


def _count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())
