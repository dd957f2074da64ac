"""A CLIP of transformers' format as open_clip reads it: its config, and the same weights under its names.

open_clip has CLIP's encoders as modules of its own, with query, key and value of an attention in one matrix and linear
projections as plain matrices. SigLIP's image encoder it has through timm alone, by the names of timm's models, so that
no other sizes can be written down.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from mmpretrain.config.kind import Kind
from mmpretrain.hub.native_forms import tower_names
from mmpretrain.models.configuration_mmpretrain import MMPretrainConfig

CONFIG, WEIGHTS = "open_clip_config.json", "open_clip_model.safetensors"
_LEGACY_END = 2  # an end token that CLIPTextModel looks for by the largest id, as OpenAI's code does
_ACTIVATIONS = {"quick_gelu": True, "gelu": False}
# Of a layer, and of what is around the layers: transformers' names -> open_clip's.
_LAYER = {"layer_norm1": "ln_1", "layer_norm2": "ln_2", "mlp.fc1": "mlp.c_fc", "mlp.fc2": "mlp.c_proj"}
_LAYER |= {"self_attn.out_proj": "attn.out_proj"}
_AROUND = {
    "vision_model.embeddings.class_embedding": "visual.class_embedding",
    "vision_model.embeddings.patch_embedding.weight": "visual.conv1.weight",
    "vision_model.embeddings.position_embedding.weight": "visual.positional_embedding",
    "text_model.embeddings.token_embedding.weight": "token_embedding.weight",
    "text_model.embeddings.position_embedding.weight": "positional_embedding",
}
_NORMS = {
    "vision_model.pre_layrnorm": "visual.ln_pre",
    "vision_model.post_layernorm": "visual.ln_post",
    "text_model.final_layer_norm": "ln_final",
}
_PROJECTIONS = {"visual_projection.weight": "visual.proj", "text_projection.weight": "text_projection"}
_LAYERS = {"vision_model": "visual.transformer.resblocks", "text_model": "transformer.resblocks"}


def open_clip_problems(config: MMPretrainConfig, entries: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """What of a model in CLIP's format open_clip cannot express; one sentence each. entries: of the processor."""
    names = tower_names(config)
    towers = {name: config.encoders[name]["config"] for name in names.values()}
    activations = {name: tower["hidden_act"] for name, tower in towers.items()}
    problems = []
    if len(set(activations.values())) > 1 or not set(activations.values()) <= set(_ACTIVATIONS):
        problems.append(
            f"open_clip has one activation for both encoders, quick_gelu or gelu, and these have {activations}"
        )
    image = entries[names[Kind.image]]
    if image.get("shortest_edge") not in (None, image["size"][0]):
        problems.append(
            f"open_clip cuts pictures out of an edge of their own size, and this is {image['shortest_edge']} pixels for"
            f" {image['size']}"
        )
    return problems


def write_open_clip(
    config: MMPretrainConfig, weights: Mapping[str, Tensor], entries: Mapping[str, Mapping[str, Any]], folder: Path
) -> None:
    """Write open_clip's two files to ``folder``. weights: of CLIPModel, whole. entries: of the release's processor."""
    length = entries[tower_names(config)[Kind.text]]["max_length"]
    (folder / CONFIG).write_text(json.dumps(_config(config, entries, length), indent=2) + "\n", encoding="utf-8")
    save_file(renamed(weights, length), folder / WEIGHTS, metadata={"format": "pt"})


def renamed(weights: Mapping[str, Tensor], length: int) -> dict[str, Tensor]:
    """CLIPModel's weights under open_clip's names. length: of texts; positions beyond it are left out."""
    found: dict[str, Tensor] = {}
    for name, tensor in weights.items():
        stem, _, kind = name.rpartition(".")
        tower, _, rest = stem.partition(".encoder.layers.")
        if name in _AROUND:
            found[_AROUND[name]] = tensor[:length] if _AROUND[name] == "positional_embedding" else tensor
        elif stem in _NORMS:
            found[f"{_NORMS[stem]}.{kind}"] = tensor
        elif name in _PROJECTIONS:
            found[_PROJECTIONS[name]] = tensor.T
        elif rest:
            number, _, part = rest.partition(".")
            if part in _LAYER:
                found[f"{_LAYERS[tower]}.{number}.{_LAYER[part]}.{kind}"] = tensor
            elif part == "self_attn.q_proj":
                three = [weights[f"{tower}.encoder.layers.{number}.self_attn.{p}_proj.{kind}"] for p in "qkv"]
                found[f"{_LAYERS[tower]}.{number}.attn.in_proj_{kind}"] = torch.cat(three)
        else:
            found[name] = tensor.reshape(())  # logit_scale
    return {name: tensor.contiguous() for name, tensor in found.items()}


def _config(config: MMPretrainConfig, entries: Mapping[str, Mapping[str, Any]], length: int) -> dict[str, Any]:
    names = tower_names(config)
    vision, text = (config.encoders[names[kind]]["config"] for kind in (Kind.image, Kind.text))
    ends = (
        {"pool_type": "argmax"}
        if text["eos_token_id"] == _LEGACY_END
        else {"pool_type": "eos", "eos_id": text["eos_token_id"]}
    )
    return {
        "model_cfg": {
            "embed_dim": config.embed_dim,
            "quick_gelu": _ACTIVATIONS[vision["hidden_act"]],
            "vision_cfg": {
                **_sizes(vision),
                "head_width": vision["hidden_size"] // vision["num_attention_heads"],
                "patch_size": vision["patch_size"],
                "image_size": vision["image_size"],
            },
            "text_cfg": {
                **_sizes(text),
                "heads": text["num_attention_heads"],
                "context_length": length,
                "vocab_size": text["vocab_size"],
                # Whatever it is, of a folder open_clip takes the tokenizer that lies there.
                "hf_tokenizer_name": "the tokenizer beside this file",
                **ends,
            },
        },
        "preprocess_cfg": _preprocessing(entries[names[Kind.image]]),
    }


def _sizes(tower: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "width": tower["hidden_size"],
        "layers": tower["num_hidden_layers"],
        "mlp_ratio": _ratio(tower["intermediate_size"], tower["hidden_size"]),
        "norm_kwargs": {"eps": tower["layer_norm_eps"]},
    }


def _ratio(hidden: int, width: int) -> float:
    """What ``int(width * ratio)`` makes ``hidden`` of."""
    ratio = hidden / width
    return ratio if int(width * ratio) == hidden else math.nextafter(ratio, math.inf)


def _preprocessing(image: Mapping[str, Any]) -> dict[str, Any]:
    squashes = (image.get("resize") or ("squash" if image.get("shortest_edge") is None else "crop")) == "squash"
    return {
        "size": image["size"][0],
        "mean": list(image.get("mean") or [0.5] * 3),
        "std": list(image.get("std") or [0.5] * 3),
        "interpolation": image.get("resample", "bicubic"),
        "resize_mode": "squash" if squashes else "shortest",
    }
