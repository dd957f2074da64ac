"""Photos with captions for the benchmark of the loader, in tars, made up.

Every photo is cut at random out of one of a few large pictures, mirrored and shaded at random. Those are noise of 1, 2,
4 ... 256 pixels, the coarser the stronger: as in photos, the power of detail falls with its fineness. A JPEG of 256
pixels and quality 90 has 19 KB on average.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import simplejpeg
import webdataset
from PIL import Image

from mmpretrain.data.index import build_index

SHARDS = 6
PICTURES = 6
WORDS = [
    "a",
    "photo",
    "of",
    "the",
    "old",
    "small",
    "red",
    "green",
    "dog",
    "cat",
    "house",
    "street",
    "tree",
    "river",
    "with",
    "and",
    "under",
    "two",
    "three",
    "people",
]


def write_photos(folder: Path, count: int, height: int, width: int) -> None:
    """``count`` samples in equal shards below ``folder``/train, with their index and sizes.json for open_clip."""
    rng = np.random.default_rng(0)
    large = [_large(rng, height * 3 // 2, width * 3 // 2) for _ in range(PICTURES)]
    (folder / "train").mkdir(parents=True)
    sizes = {}
    for shard, numbers in enumerate(np.array_split(np.arange(count), SHARDS)):
        name = f"shard-{shard:06d}.tar"
        sizes[name] = len(numbers)
        with webdataset.TarWriter(str(folder / "train" / name), encoder=False) as writer:
            for number in numbers.tolist():
                caption = " ".join(rng.choice(WORDS, 10))
                photo = _photo(rng, large[number % PICTURES], height, width)
                writer.write({"__key__": f"p{number:06d}", "jpg": photo, "txt": caption.encode()})
    build_index(folder / "train")
    (folder / "sizes.json").write_text(json.dumps(sizes))


def _large(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    total = np.zeros((height, width, 3), np.float32)
    for grain in (1, 2, 4, 8, 16, 32, 64, 128, 256):
        noise = rng.normal(0, 1, (3, -(-height // grain) + 1, -(-width // grain) + 1)).astype(np.float32)
        layers = [Image.fromarray(layer).resize((width, height), Image.Resampling.BICUBIC) for layer in noise]
        total += grain**0.3 * np.stack([np.asarray(layer) for layer in layers], axis=-1)
    return (127 + 50 * total / total.std()).clip(0, 255).astype(np.uint8)


def _photo(rng: np.random.Generator, large: np.ndarray, height: int, width: int) -> bytes:
    top, left = rng.integers(0, large.shape[0] - height), rng.integers(0, large.shape[1] - width)
    pixels = large[top : top + height, left : left + width]
    if rng.random() < 0.5:
        pixels = pixels[:, ::-1]
    shaded = np.ascontiguousarray(pixels // 4 * 3 + rng.integers(0, 64, 3, np.uint8))
    found: bytes = simplejpeg.encode_jpeg(shaded, quality=90, colorsubsampling="420")
    return found
