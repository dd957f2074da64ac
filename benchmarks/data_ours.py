"""Our loader, and the decode limit, in a process of their own (see benchmarks/data.py).

python -m benchmarks.data_ours NAME FOLDER WORKERS SAMPLES BATCH
"""

from __future__ import annotations

import multiprocessing
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg
import torch

from benchmarks.data_others import CROP, SIZE, run
from benchmarks.photos import WORDS
from mmpretrain.assembly.build import build_processor
from mmpretrain.config.augment import AugmentConfig
from mmpretrain.config.data import DataConfig, Kind, ModalityConfig
from mmpretrain.config.methods.base import MethodConfig
from mmpretrain.config.model import EncoderConfig, ModelConfig
from mmpretrain.config.root import Config
from mmpretrain.data.batch import Inputs
from mmpretrain.data.loader import load
from mmpretrain.data.pictures import Training
from mmpretrain.data.stream import Stream
from tests.small_tokenizer import small_tokenizer

WHOLE = 256  # pixels


class Unfinished:
    """A processor whose second half is left to a device: batches stay uint8."""

    def __init__(self, processor: Any) -> None:
        self.modalities, self.encoded = processor.modalities, processor.encoded

    def __call__(self, **samples: Any) -> Inputs:
        """The first half alone."""
        found: Inputs = self.encoded(**samples)
        return found

    def finished(self, inputs: Inputs) -> Inputs:
        """As they are."""
        return inputs


def opened(folder: Path, workers: int, batch: int, *, uint8: bool = False, whole: int | None = None) -> Stream:
    """The training stream of a run on these photos. whole: they are handed over at this size, without a crop."""
    image = ModalityConfig(Kind.image, [SIZE, SIZE], train=AugmentConfig(crop=list(CROP)))
    modalities = {
        "image": image if whole is None else ModalityConfig(Kind.image, [whole, whole]),
        "text": ModalityConfig(Kind.text, max_length=77),
    }
    encoders = {
        "image": EncoderConfig("vit"),
        "text": EncoderConfig("bert", tokenizer=small_tokenizer(" ".join(WORDS))),
    }
    data = DataConfig("photos", str(folder), modalities=modalities, global_batch=batch, workers=workers)
    config = Config(method=MethodConfig(), data=data, model=ModelConfig(encoders=encoders))
    processor: Any = build_processor(config)
    training = Training.of(config, processor)
    return Stream(data, "train", 0, 0, 1, Unfinished(processor) if uint8 else processor, training=training)


def raw(stream: Stream, workers: int, steps: int) -> Iterator[list[dict[str, Any]]]:
    """The samples as their members' bytes alone, in the planned order; the bytes are views of the batch's memory."""

    def make(positions: Any, ordinals: Sequence[int]) -> tuple[list[dict[str, Any]], torch.Tensor]:
        samples = list(stream.reader.samples(ordinals))
        content = [np.frombuffer(value, np.uint8) for sample in samples for value in sample.values() if _member(value)]
        sizes = [{key: len(v) if _member(v) else v for key, v in sample.items()} for sample in samples]
        return sizes, torch.from_numpy(np.concatenate(content))

    for sizes, content in load(make, partial(stream.plan.slice, rank=0, world_size=1), range(steps), workers):
        yield _cut(sizes, memoryview(content.numpy()))


def _member(value: Any) -> bool:
    return isinstance(value, bytes)


def _cut(samples: list[dict[str, Any]], content: memoryview) -> list[dict[str, Any]]:
    """Sizes of members in the order of ``content`` -> the members."""
    start = 0
    for sample in samples:
        for key, size in sample.items():
            if isinstance(size, int):
                sample[key] = content[start : start + size]
                start += size
    return samples


def decode_limit(folder: Path, workers: int) -> Iterator[int]:
    """JPEGs of memory, decoded by so many processes and thrown away."""
    stream = opened(folder, 0, 1)
    members = [stream.reader.sample(ordinal)["jpg"] for ordinal in range(len(stream.index))]
    shares = [members[number::workers] for number in range(workers)]
    processes = [multiprocessing.get_context("fork").Process(target=_decode, args=(share,)) for share in shares]
    yield 0
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    yield len(members)


def _decode(members: Sequence[bytes]) -> None:
    for member in members:
        simplejpeg.decode_jpeg(member)


def main() -> None:
    """One loader, as the command line says."""
    torch.set_num_threads(1)
    name, folder, (workers, samples, batch) = sys.argv[1], Path(sys.argv[2]), map(int, sys.argv[3:6])
    steps = samples // batch
    if name == "decode_limit":
        ready = decode_limit(folder, workers)
        next(ready)
        run(lambda: ready, int)
        return
    stream = opened(folder, workers, batch, uint8=name != "ours", whole=WHOLE if name == "ours_whole" else None)
    if name == "ours_raw":
        run(lambda: raw(stream, workers, steps), len)
    else:
        run(lambda: stream.batches(0, steps), len)


if __name__ == "__main__":
    main()
