"""Two drawn domains of captioned pictures, and a small CLIP that has not seen either.

``photos``: filled shapes on a plain ground. ``signs``: outlines of other shapes in other colors on stripes. The
captions of both are made of one list of words, as a published CLIP knows all of them.
"""

from __future__ import annotations

import io
import random
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageDraw
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing
from transformers import CLIPConfig, CLIPModel, PreTrainedTokenizerFast
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from mmpretrain.data.info import DatasetInfo
from mmpretrain.data.writing import RawSample, build_dataset

SIDE = 32  # pixels
PHOTO_SHAPES, SIGN_SHAPES = ("circle", "square", "triangle", "cross"), ("ring", "diamond", "arrow", "bars")
PHOTO_COLORS = {"red": (215, 45, 45), "yellow": (235, 215, 60), "green": (50, 165, 75), "blue": (55, 95, 215)}
SIGN_COLORS = {"pink": (240, 120, 190), "orange": (240, 145, 35), "teal": (30, 150, 150), "purple": (125, 60, 180)}
GROUNDS = {"white": (250, 250, 250), "black": (20, 20, 20), "gray": (130, 130, 130)}
PLACES = {"left": 10, "middle": 16, "right": 22}
SIZES = {"small": 4, "large": 8}
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
_PLAIN = ("a", "of", "sign", "photo", "on", "the", "ground", "stripes", ",")
WORDS = (*_PLAIN, *PHOTO_SHAPES, *SIGN_SHAPES, *PHOTO_COLORS, *SIGN_COLORS, *GROUNDS, *PLACES, *SIZES)


def photo(number: int) -> tuple[Image.Image, str, int]:
    """A filled shape on a plain ground, its caption, and the number of its shape."""
    chance = random.Random(number)
    color, ground, place, size = (chance.choice(list(c)) for c in (PHOTO_COLORS, GROUNDS, PLACES, SIZES))
    label = chance.randrange(len(PHOTO_SHAPES))
    image = Image.new("RGB", (SIDE, SIDE), GROUNDS[ground])
    x, y, r = PLACES[place], 16 + chance.randint(-4, 4), SIZES[size]
    draw, fill = ImageDraw.Draw(image), PHOTO_COLORS[color]
    if label == 0:
        draw.ellipse((x - r, y - r, x + r, y + r), fill=fill)
    elif label == 1:
        draw.rectangle((x - r, y - r, x + r, y + r), fill=fill)
    elif label == 2:
        draw.polygon([(x - r, y + r), (x + r, y + r), (x, y - r)], fill=fill)
    else:
        draw.line((x - r, y, x + r, y), fill, 3)
        draw.line((x, y - r, x, y + r), fill, 3)
    return image, f"a photo of a {size} {color} {PHOTO_SHAPES[label]} on the {place} , {ground} ground", label


def sign(number: int) -> tuple[Image.Image, str, int]:
    """An outline on stripes, its caption, and the number of its shape."""
    chance = random.Random(-1 - number)
    color, ground, place, size = (chance.choice(list(c)) for c in (SIGN_COLORS, GROUNDS, PLACES, SIZES))
    label = chance.randrange(len(SIGN_SHAPES))
    image = Image.new("RGB", (SIDE, SIDE), GROUNDS[ground])
    draw, fill = ImageDraw.Draw(image), SIGN_COLORS[color]
    for row in range(chance.randint(0, 3), SIDE, 4):
        draw.line((0, row, SIDE, row), (180, 180, 110))
    x, y, r = PLACES[place], 16 + chance.randint(-4, 4), SIZES[size]
    if label == 0:
        draw.ellipse((x - r, y - r, x + r, y + r), outline=fill, width=2)
    elif label == 1:
        draw.polygon([(x - r, y), (x, y - r), (x + r, y), (x, y + r)], outline=fill, width=2)
    elif label == 2:
        draw.line((x - r, y, x + r, y), fill, 2)
        draw.line((x, y - r, x + r, y, x, y + r), fill, 2)
    else:
        draw.line((x - r // 2, y - r, x - r // 2, y + r), fill, 2)
        draw.line((x + r // 2, y - r, x + r // 2, y + r), fill, 2)
    return image, f"a sign of a {size} {color} {SIGN_SHAPES[label]} on the {place} , {ground} stripes", label


DOMAINS = {"photos": (photo, PHOTO_SHAPES), "signs": (sign, SIGN_SHAPES)}


def write_domain(folder: Path, domain: str, **splits: int) -> Path:
    """One of DOMAINS as a data set with so many samples in each split, and its shapes as classes."""
    drawn, shapes = DOMAINS[domain]
    numbers, samples = 0, {}
    for split, count in splits.items():
        samples[split] = [_sample(*drawn(number), number) for number in range(numbers, numbers + count)]
        numbers += count
    modalities: dict[str, dict[str, Any]] = {"image": {"kind": "image", "size": [SIDE, SIDE]}, "text": {"kind": "text"}}
    info = DatasetInfo(domain, f"Drawn {domain}", "drawn by a program", "MIT", modalities, list(shapes))
    build_dataset(folder, info, samples)
    return folder


def _sample(image: Image.Image, caption: str, label: int, number: int) -> RawSample:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return {
        "__key__": f"{number:06d}",
        "image.png": buffer.getvalue(),
        "text.txt": caption.encode(),
        "label.cls": str(label).encode(),
    }


def write_clip(folder: Path, seed: int) -> Path:
    """A CLIP of transformers by its config, with random weights, its tokenizer and its image processor."""
    vocabulary = {word: number for number, word in enumerate((*SPECIAL, *WORDS))}
    words = Tokenizer(WordLevel(vocabulary, unk_token="[UNK]"))
    words.pre_tokenizer = Whitespace()
    ends = [(name, vocabulary[name]) for name in ("[CLS]", "[SEP]")]
    words.post_processor = TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]"
    )
    layers = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 3, "num_attention_heads": 4}
    text = {**layers, "vocab_size": len(vocabulary), "max_position_embeddings": 24, "pad_token_id": 0}
    text |= {"bos_token_id": vocabulary["[CLS]"], "eos_token_id": vocabulary["[SEP]"]}
    vision = {**layers, "image_size": SIDE, "patch_size": 4}
    torch.manual_seed(seed)
    CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=64)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    size = {"height": SIDE, "width": SIDE}
    CLIPImageProcessorPil(size=size, crop_size=size).save_pretrained(folder)
    return folder
