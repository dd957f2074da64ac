"""A small data set with everything that a page must bear: strangers' texts, broken members, odd sizes."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image

from mmpretrain.config.choices import Choices
from mmpretrain.config.compose import compose
from mmpretrain.config.root import Config
from mmpretrain.data.info import DatasetInfo
from mmpretrain.data.writing import RawSample, build_dataset, npy
from tests.small_tokenizer import small_tokenizer

HOSTILE = '<script>document.title = "taken"</script><img src=x onerror="document.title = 1">'
TITLE = "Photos <b>of</b> ramps"
TRAIN, TEST = 12, 4
LONG = "a bold seven " * 4
CONFIG = """
name: photos
path: nowhere
modalities:
  photo: {kind: image, size: [16, 16], train: {flip: 0.5}}
  caption: {kind: text, max_length: 8}
  track: {kind: sequence, size: [5, 3]}
  gene: {kind: vector, size: [4]}
classes: 2
"""
MODEL = """
embed_dim: 8
encoders:
  photo: {architecture: vit, config: {patch_size: 8, hidden_size: 8, num_attention_heads: 1}}
  caption: {architecture: bert, tokenizer: TOKENIZER, config: {hidden_size: 8, num_attention_heads: 1}}
  track: {architecture: sequence, config: {width: 8, layers: 1, heads: 1}}
  gene: {architecture: mlp, config: {hidden_size: 8, output_size: 8}}
"""


def sample(number: int) -> RawSample:
    """Number 1 is hostile, 2 has a long caption, 3 is no image, 4 an empty text; the others are plain."""
    rng = np.random.default_rng(number)
    file = io.BytesIO()
    Image.fromarray(rng.integers(0, 255, (20 + number, 80, 3), dtype=np.uint8)).save(file, "PNG")
    captions = {1: HOSTILE, 2: LONG, 4: " "}
    return {
        "__key__": f"key <i>{number:02d}",
        "photo.png": b"<!DOCTYPE html>" if number == 3 else file.getvalue(),
        "caption.txt": captions.get(number, "a bold seven").encode(),
        "track.npy": npy(rng.normal(size=(3 + number % 4, 3)).astype(np.float32)),
        "gene.npy": npy(rng.normal(size=4).astype(np.float32)),
        "label.cls": str(number % 2).encode(),
    }


def write(root: Path) -> Path:
    """The data set below ``root``, and beside it the choice ``photos`` of data and model in ``root/configs``."""
    splits = {"train": map(sample, range(TRAIN)), "test": map(sample, range(TRAIN, TRAIN + TEST))}
    info = DatasetInfo("photos", TITLE, "drawn", "CC0", {}, classes=["day & night", "<b>dusk"])
    build_dataset(root / "photos", info, splits)
    for group, text in (("data", CONFIG), ("model", MODEL.replace("TOKENIZER", small_tokenizer()))):
        (root / "configs" / group).mkdir(parents=True)
        (root / "configs" / group / "photos.yaml").write_text(text)
    return root / "photos"


def config(photos: Path, *tokens: str) -> Config:
    """What training would be told of it."""
    return compose(["data=photos", f"data.path={photos}", *tokens], choices=Choices(photos.parent / "configs"))
