"""The processor of a release in CLIP's or SigLIP's own format, and the samples that both are compared on."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

from mmpretrain.config.kind import Kind
from mmpretrain.hub.native_forms import Form, tower_names
from mmpretrain.models.configuration_mmpretrain import MMPretrainConfig
from mmpretrain.models.processing_mmpretrain import MMPretrainProcessor


def native_processor(form: Form, config: MMPretrainConfig, processor: MMPretrainProcessor, folder: Path) -> None:
    """Write the release's processor to ``folder`` as one of the format."""
    names = tower_names(config)
    image, text = (processor.modalities[names[kind]] for kind in (Kind.image, Kind.text))
    tokenizer = copy.deepcopy(processor.tokenizers[names[Kind.text]])
    tokenizer.model_max_length, tokenizer.padding_side = text["max_length"], "right"
    tokenizer.model_input_names = ["input_ids"] if form.padded else ["input_ids", "attention_mask"]
    tokenizer.init_kwargs["model_input_names"] = tokenizer.model_input_names
    found = form.processor(image_processor=_images(image), tokenizer=tokenizer)
    found.save_pretrained(folder)
    found.image_processor.save_pretrained(folder)  # preprocessor_config.json, which older readers look for


def _images(entry: Mapping[str, Any]) -> Any:
    height, width = entry["size"]
    edge = entry.get("shortest_edge")
    crops = (entry.get("resize") or ("squash" if edge is None else "crop")) == "crop"
    resample = Image.Resampling.BILINEAR if entry.get("resample") == "bilinear" else Image.Resampling.BICUBIC
    usual: dict[str, Any] = {
        "image_mean": list(entry.get("mean") or [0.5] * 3),
        "image_std": list(entry.get("std") or [0.5] * 3),
        "resample": int(resample),
        "do_convert_rgb": True,
    }
    whole = {"height": height, "width": width}
    if crops:
        return CLIPImageProcessorPil(size={"shortest_edge": edge or height}, crop_size=whole, **usual)
    return SiglipImageProcessorPil(size=whole, **usual)


def sample_inputs(kind: Kind, entry: Mapping[str, Any]) -> list[list[Any]]:
    """Batches of made-up samples: texts short and long, alone and together; pictures that shrink, wide and high."""
    if kind is Kind.text:
        return [["a"], ["a", "more than fits " * 99]]
    draws, side = np.random.default_rng(0), entry["size"][0]
    shapes = ((3 * side + 7, 5 * side), (4 * side, 2 * side + 1))
    return [[Image.fromarray(draws.integers(0, 256, (*shape, 3), dtype=np.uint8)) for shape in shapes]]
