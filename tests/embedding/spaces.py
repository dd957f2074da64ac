"""Tiny releases and a data set for them: images, captions, vectors, labels; every third sample lacks its vector."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import (
    AutoTokenizer,
    BertConfig,
    BertModel,
    ClapConfig,
    ClapModel,
    CLIPConfig,
    CLIPModel,
    SiglipConfig,
    SiglipImageProcessorPil,
    SiglipModel,
)
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from mmpretrain.assembly.build import build_processor
from mmpretrain.data.info import DatasetInfo
from mmpretrain.data.writing import RawSample, build_dataset
from mmpretrain.embedding.jobs import EmbedJob
from mmpretrain.hub.export import export_release
from mmpretrain.models.modeling_mmpretrain import MMPretrainModel
from tests.data.small_dataset import npy, png
from tests.hub.test_card import facts
from tests.models.small import BERT, LAYERS, small_config, small_model
from tests.small_tokenizer import small_tokenizer

WORDS = ["a", "bold", "light", "seven", "three", "digit"]
SAMPLES = {"train": 23, "test": 5}
LACKS_GENES = 3  # every so many samples


def genes(number: int) -> np.ndarray:
    """The vector of a sample, float64 [7]."""
    return np.sin(np.arange(7) * 0.3 + number)


def caption(number: int) -> str:
    """The caption of a sample."""
    return " ".join(WORDS[(number * step) % len(WORDS)] for step in (1, 2, 3))


def raw_sample(number: int, width: int = 7) -> RawSample:
    """What the shards hold; width: of the vector."""
    sample: RawSample = {
        "__key__": f"s{number:04d}",
        "picture.png": png(7 * number % 256, (8, 4)),
        "caption.txt": caption(number).encode(),
        "label.cls": str(number % 3).encode(),
    }
    if number % LACKS_GENES:
        sample["genes.npy"] = npy(np.resize(genes(number), width))
    return sample


def write_data(folder: Path, width: int = 7) -> Path:
    """The data set, with a train and a test split."""
    first = {"train": 0, "test": 100}
    splits = {split: [raw_sample(first[split] + n, width) for n in range(count)] for split, count in SAMPLES.items()}
    modalities: dict[str, dict[str, Any]] = {"picture": {"kind": "image"}, "caption": {"kind": "text"}}
    build_dataset(folder, DatasetInfo("small", "A small set", "made up", "MIT", modalities, list("xyz")), splits)
    return folder


def write_release(folder: Path, seed: int = 0) -> MMPretrainModel:
    """A release with picture, caption and genes; returns its model."""
    model = small_model(seed=seed)
    export_release(model, model.state_dict(), build_processor(small_config()), folder, facts())
    return model


def write_clip(folder: Path) -> CLIPModel:
    """A CLIP of a few thousand weights, with its tokenizer and its image processor; returns it."""
    tokenizer = AutoTokenizer.from_pretrained(small_tokenizer())
    tokens = {"bos_token_id": tokenizer.cls_token_id, "eos_token_id": tokenizer.sep_token_id}
    text = {**LAYERS, **tokens, "vocab_size": len(tokenizer), "max_position_embeddings": 10, "pad_token_id": 0}
    vision = {**LAYERS, "image_size": 8, "patch_size": 4}
    torch.manual_seed(0)
    model = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=12)).eval()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    size = {"height": 8, "width": 8}
    CLIPImageProcessorPil(size=size, crop_size=size).save_pretrained(folder)
    return model


def write_siglip(folder: Path) -> SiglipModel:
    """A SigLIP of a few thousand weights, with its tokenizer and its image processor; returns it."""
    # It was trained on padded texts without a mask, and its tokenizer gives none.
    options: dict[str, Any] = {"model_max_length": 10, "model_input_names": ["input_ids"]}
    tokenizer = AutoTokenizer.from_pretrained(small_tokenizer(), **options)
    text = {**LAYERS, "vocab_size": len(tokenizer), "max_position_embeddings": 10, "pad_token_id": 0}
    vision = {**LAYERS, "image_size": 8, "patch_size": 4}
    torch.manual_seed(0)
    model = SiglipModel(SiglipConfig(text_config=text, vision_config=vision)).eval()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    SiglipImageProcessorPil(size={"height": 8, "width": 8}).save_pretrained(folder)
    return model


def write_bert(folder: Path) -> BertModel:
    """A single text encoder with its tokenizer; returns it."""
    tokenizer = AutoTokenizer.from_pretrained(small_tokenizer())
    torch.manual_seed(0)
    model = BertModel(BertConfig(vocab_size=len(tokenizer), **BERT)).eval()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return model


def write_clap(folder: Path) -> ClapModel:
    """A text and an audio tower, with 16 rows of positions, two of them before the first token's; returns it."""
    tokenizer = AutoTokenizer.from_pretrained(small_tokenizer(), model_max_length=512)
    text = {**BERT, "vocab_size": len(tokenizer), "pad_token_id": 1, "projection_dim": 12}
    sizes = {"depths": [1], "num_attention_heads": [1], "patch_embeds_hidden_size": 8, "hidden_size": 8}
    audio = {**sizes, "spec_size": 64, "num_mel_bins": 16, "window_size": 4, "projection_dim": 12}
    torch.manual_seed(0)
    model = ClapModel(ClapConfig(text_config=text, audio_config=audio, projection_dim=12)).eval()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return model


def job(release: Path, data: Path, out: Path, **changes: Any) -> EmbedJob:
    """Small shards and batches that do not divide one another."""
    known: dict[str, Any] = {"release": str(release), "data": str(data), "out": str(out)}
    return EmbedJob(**known | {"samples_per_shard": 5, "batch": 3} | changes)
