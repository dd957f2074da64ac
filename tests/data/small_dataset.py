"""A dataset of a few kilobytes with one modality of each kind, written with webdataset's own writer."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from transformers import AutoTokenizer
from webdataset import TarWriter

from mmpretrain.config.data import DataConfig, Kind, ModalityConfig
from mmpretrain.data.index import Index, build_index
from mmpretrain.data.stream import Stream
from mmpretrain.models.processing_mmpretrain import MMPretrainProcessor
from tests.small_tokenizer import small_tokenizer

CLASSES = 7

Sample = dict[str, Any]
Change = Callable[[int, Sample], Sample]


def png(number: int, size: tuple[int, int] = (4, 6)) -> bytes:
    """A grey PNG of (height, width) pixels, all of value ``number``."""
    file = io.BytesIO()
    Image.new("L", size[::-1], number).save(file, "PNG")
    return file.getvalue()


def npy(values: Any) -> bytes:
    """An array as numpy.save writes it (object arrays pickled)."""
    file = io.BytesIO()
    np.save(file, np.asarray(values), allow_pickle=True)
    return file.getvalue()


def sample(number: int) -> Sample:
    """The ``number``-th sample; each of its members tells the number."""
    return {
        "__key__": f"s{number:04d}",
        "picture.png": png(number % 256),
        "caption.txt": f"a {'bold' if number % 2 else 'light'} digit",
        "values.npy": npy(np.full(3, number, np.float32)),
        "label.cls": str(number % CLASSES),
    }


def write_split(folder: Path, shard_sizes: tuple[int, ...], change: Change = lambda number, sample: sample) -> Index:
    """Tars with these many samples, numbered through, and their index. change: applied to every sample."""
    folder.mkdir(parents=True, exist_ok=True)
    number = 0
    for shard, size in enumerate(shard_sizes):
        with TarWriter(str(folder / f"shard-{shard:06d}.tar"), encoder=False) as writer:
            for _ in range(size):
                entry = change(number, sample(number))
                writer.write({k: v.encode() if k != "__key__" and isinstance(v, str) else v for k, v in entry.items()})
                number += 1
    return build_index(folder)


def config(path: Path | str, **changes: Any) -> DataConfig:
    """The data section for such a dataset."""
    modalities = {
        "picture": ModalityConfig(Kind.image, [4, 6], channels=1),
        "caption": ModalityConfig(Kind.text, max_length=6),
        "values": ModalityConfig(Kind.vector, [3]),
    }
    settings: dict[str, Any] = {"global_batch": 8, "window": 2, "classes": CLASSES, "build": "make-small"} | changes
    return DataConfig("small", str(path), modalities=modalities, **settings)


def processor() -> MMPretrainProcessor:
    """The processor that a run would build for it."""
    return MMPretrainProcessor(
        {
            "picture": {"kind": "image", "size": [4, 6], "channels": 1},
            "caption": {"kind": "text", "max_length": 6},
            "values": {"kind": "vector", "size": [3]},
        },
        {"caption": AutoTokenizer.from_pretrained(small_tokenizer())},
    )


def stream(path: Path | str, rank: int = 0, world_size: int = 1, seed: int = 5, **changes: Any) -> Stream:
    """The train stream of a dataset; changes go to the data section, ``log`` is the quarantine log."""
    log = changes.pop("log", None)
    return Stream(config(path, **changes), "train", seed, rank, world_size, processor(), log)
