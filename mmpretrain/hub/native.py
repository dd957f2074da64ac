"""A release of an image and a text encoder once more in CLIP's or SigLIP's own format, which needs no code of ours.

It lies in the folder ``native`` of a release, and is a whole repository of its own: ``CLIPModel``, ``AutoModel``,
``pipeline("zero-shot-image-classification")`` and whatever else reads CLIP open it. It is written where the encoders
are CLIP's or SigLIP's and come together as there, and only if made-up samples get the same embeddings.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import ModelCard, ModelCardData
from torch import Tensor

from mmpretrain.config.kind import Kind
from mmpretrain.files import sha256_of
from mmpretrain.hub.card import CardFacts, ConvertedFacts, public
from mmpretrain.hub.native_forms import Form, inputs_problems, nearest_form, parts_problems, tower_names
from mmpretrain.hub.native_inputs import native_processor, sample_inputs
from mmpretrain.hub.open_clip_format import open_clip_problems, write_open_clip
from mmpretrain.hub.sentence_transformers_files import write_native_modules
from mmpretrain.models.configuration_mmpretrain import MMPretrainConfig
from mmpretrain.models.modeling_mmpretrain import MMPretrainModel
from mmpretrain.models.processing_mmpretrain import MMPretrainProcessor
from mmpretrain.problems import one_line
from mmpretrain.release_folder import CHECKSUMS, NATIVE, release_files
from mmpretrain.words import listed

CLOSE = 1e-5  # of an embedding's length, in float32
ROUGH = 2e-2  # the same in types of 16 bits
USAGE = """from PIL import Image
from transformers import AutoModel, AutoProcessor

path = "."  # this folder, or its name on the Hub
model, processor = AutoModel.from_pretrained(path), AutoProcessor.from_pretrained(path)
texts = processor(text=["a text"], padding="max_length", truncation=True, return_tensors="pt")
images = processor(images=[Image.new("RGB", (640, 480))], return_tensors="pt")
output = model(**texts, **images)
output.logits_per_image, output.image_embeds, output.text_embeds
"""
LEVELS = 3  # of 255: how far a pixel may be off, for libraries round differently


class NotNative(ValueError):
    """Why a release has no such folder; reasons: one sentence each, empty where nothing of it is CLIP's or SigLIP's."""

    def __init__(self, reasons: list[str]) -> None:
        super().__init__("; ".join(reasons))
        self.reasons = reasons


def native_note(config: Any) -> str | None:
    """What is said of a model before it is trained: None where neither encoder is of CLIP or SigLIP."""
    form = nearest_form(config)
    if form is None:
        return None
    if problems := parts_problems(form, config):
        return f"the release cannot be written in {form.title}'s own format too: {'; '.join(problems)}"
    return f"the release is written in {form.title}'s own format too, if its method learns {form.similarity} logits"


def write_native(
    config: MMPretrainConfig,
    state: Mapping[str, Tensor],
    processor: MMPretrainProcessor,
    release: Path,
    card: ModelCard,
    max_shard_size: str = "5GB",
) -> list[str]:
    """Write ``release / "native"``; the release lies there already, but for its card and checksums.

    config, state, processor: of the release, whole. card: of the folder. Returns what of it open_clip cannot read, one
    sentence each. Raises NotNative, and leaves nothing, where the model has no such form.
    """
    form, folder = _form(config, processor), release / NATIVE
    try:
        weights = _write(form, config, state, processor, folder, max_shard_size)
        _check_same(form, release)
        problems = [f"open_clip has {form.title}'s encoders through timm's names alone"]
        if form.projected:
            problems = open_clip_problems(config, processor.modalities)
        if not problems:
            write_open_clip(config, weights, processor.modalities, folder)
    except NotNative:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    card.save(folder / "README.md")
    seal(folder)
    return problems


def native_card(card: CardFacts | ConvertedFacts) -> ModelCard:
    """The card of the folder, which may be a repository of its own. card: what is known of the release."""
    data = ModelCardData(
        model_name=card.name,
        library_name="transformers",
        pipeline_tag="zero-shot-image-classification",
        license=card.license,
        tags=["multimodal", "mmpretrain"],
    )
    body = (
        f"# {card.name}\n\nAn image and a text encoder, trained together, in a format that transformers knows: no code"
        " is needed, and no `trust_remote_code`. The release that they were written from, with its data, evaluation and"
        f" limits, is the folder above.\n\n```python\n{USAGE}```\n"
    )
    return ModelCard(public(f"---\n{data.to_yaml()}\n---\n\n{body}"))


def _form(config: MMPretrainConfig, processor: MMPretrainProcessor) -> Form:
    form = nearest_form(config)
    if form is None:
        raise NotNative([])
    problems = parts_problems(form, config) or inputs_problems(form, config, processor.modalities)
    if not problems and config.similarity != {"form": form.similarity}:
        problems = [f"{form.title} gives {form.similarity} logits, and method={config.method} learns no scale of these"]
    if problems:
        raise NotNative([f"{problem} ({form.title}'s own format)" for problem in problems])
    return form


def _write(
    form: Form,
    config: MMPretrainConfig,
    state: Mapping[str, Tensor],
    processor: MMPretrainProcessor,
    folder: Path,
    max_shard_size: str,
) -> dict[str, Tensor]:
    """Weights, config and processor; returns the weights under the names of the format."""
    with torch.device("meta"):
        model = form.model(_config(form, config))
    weights, own = _renamed(config, state), model.state_dict()
    if differing := sorted(set(weights) ^ set(own)):
        raise NotNative([f"{form.title}'s weights have other names here ({listed(differing, 3)})"])
    weights = {name: tensor.reshape(own[name].shape) for name, tensor in weights.items()}
    model.to(next(iter(weights.values())).dtype)  # which config.json tells
    model.save_pretrained(folder, state_dict=dict(weights), max_shard_size=max_shard_size)
    native_processor(form, config, processor, folder)
    write_native_modules(folder, form.padded)
    return weights


def _check_same(form: Form, release: Path) -> None:
    """Raises NotNative if made-up samples are read or embedded otherwise from the folder than from the release."""
    ours = MMPretrainModel.from_pretrained(release).eval()
    try:
        theirs: Any = form.model.from_pretrained(release / NATIVE).eval()
        reader: Any = form.processor.from_pretrained(release / NATIVE)
        differing = _differing(form, ours, MMPretrainProcessor.from_pretrained(release), theirs, reader)
    except Exception as error:  # a tokenizer that this format cannot hold fails in its own way
        raise NotNative([f"{form.title}'s own format does not hold it ({one_line(error)})"]) from error
    if differing:
        raise NotNative([f"its {differing} come out differently in {form.title}'s own format"])


@torch.no_grad()
def _differing(form: Form, ours: Any, processor: MMPretrainProcessor, theirs: Any, reader: Any) -> str | None:
    """What is read or embedded differently, None if nothing is."""
    names = tower_names(ours.config)
    for kind, name in names.items():
        for items in sample_inputs(kind, processor.modalities[name]):
            right = processor(**{name: items})
            found = reader(**form.arguments(kind, items), return_tensors="pt")
            if kind is Kind.image:
                deviation = torch.tensor(processor.modalities[name].get("std") or [0.5] * 3).view(3, 1, 1)
                off = (found["pixel_values"] - right[name]["pixel_values"]) * deviation * 255
                if off.abs().max() > LEVELS:
                    return "pixels"
                found = {"pixel_values": right[name]["pixel_values"]}
            embeds = ours(**right).embeds[name].float()
            output = getattr(theirs, f"get_{kind.value}_features")(**found)
            other = (output if isinstance(output, Tensor) else output.pooler_output).float()
            if not (other - embeds).norm() <= (CLOSE if ours.dtype is torch.float32 else ROUGH) * embeds.norm():
                return "pictures" if kind is Kind.image else "texts"
    return None


def seal(folder: Path) -> None:
    """Write the checksums of a folder's files, last of all."""
    sums = [f"{sha256_of(path)}  {name}\n" for name, path in release_files(folder)]
    (folder / CHECKSUMS).write_text("".join(sums), encoding="utf-8")


def _config(form: Form, config: MMPretrainConfig) -> Any:
    names = tower_names(config)
    towers = {
        f"{part}_config": config.encoders[names[kind]]["config"]
        for kind, part in ((Kind.image, "vision"), (Kind.text, "text"))
    }
    return form.config(**towers, **({"projection_dim": config.embed_dim} if form.projected else {}))


def _renamed(config: MMPretrainConfig, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of both towers, their projections and the scale, by their names in the native model."""
    places = {}
    for kind, name in tower_names(config).items():
        part = "vision" if kind is Kind.image else "text"
        places[f"encoders.{name}.backbone."] = f"{part}_model."
        projection = "visual" if kind is Kind.image else "text"
        places[f"projections.{name}."] = f"{projection}_projection."
    found = {name: tensor for name, tensor in state.items() if name in ("logit_scale", "logit_bias")}
    for name, tensor in state.items():
        for ours, theirs in places.items():
            if name.startswith(ours):
                found[theirs + name.removeprefix(ours)] = tensor
    return found
