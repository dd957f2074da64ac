"""Training from shards to the update on two ranks: our whole loop beside open_clip's loader and loop.

2,000 JPEGs of 256 x 256 pixels with captions; a ViT (224 pixels, patches of 32) and a BERT, 6 layers and 192 wide each,
the same modules in both. Both crop at random (0.9 to 1 of the area) and normalize; each reads with the same number of
worker processes per rank. Processor time counts the workers.
"""

from __future__ import annotations

import functools
import io
import multiprocessing
import os
import time
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel
from transformers import AutoTokenizer

from benchmarks.measure import Reading
from benchmarks.step_loops import open_clip_arguments, open_clip_training
from mmpretrain.config.compose import compose, save_config
from mmpretrain.config.root import Config
from mmpretrain.data.info import DatasetInfo
from mmpretrain.data.writing import RawSample, build_dataset
from mmpretrain.distributed.world import World
from mmpretrain.engine.optimizer import build_optimizer, parameter_groups
from mmpretrain.methods.build import build_method
from mmpretrain.run_folder import RunFolder
from mmpretrain.training.session import Session
from tests.small_tokenizer import small_tokenizer

SAMPLES, LENGTH = 2000, 32
WARM_UP = 4  # the loaders fill their queues
WORDS = "a photo of the red green blue large small house tree river road cat dog bird near under over two three"
IMAGE = {"kind": "image", "size": [224, 224], "channels": 3, "member": ["jpg"], "train": {"crop": [0.9, 1.0]}}
CAPTION = {"kind": "text", "max_length": LENGTH, "member": ["txt"]}
WIDTH = {"hidden_size": 192, "intermediate_size": 768, "num_hidden_layers": 6, "num_attention_heads": 3}


def make_shards(folder: Path, count: int = SAMPLES) -> None:
    """The data set of so many samples, always the same."""
    modalities = {"image": {**IMAGE, "train": None}, "caption": CAPTION}  # members as open_clip's pipeline names them
    info = DatasetInfo("photos", "Made photos", "made by this benchmark", "none", modalities)
    build_dataset(folder, info, {"train": _samples(np.random.default_rng(0), count)})


def config_of(folder: Path, batch: int, zero: int, workers: int, steps: int) -> Config:
    """Of our run; the other loop takes its model and optimizer from it."""
    encoders: dict[str, dict[str, Any]] = {
        "image": {"architecture": "vit", "config": {**WIDTH, "patch_size": 32}},
        "caption": {"architecture": "bert", "tokenizer": small_tokenizer(WORDS), "config": WIDTH},
    }
    trees: dict[str, dict[str, Any]] = {"data.modalities.image": IMAGE, "data.modalities.caption": CAPTION}
    trees |= {f"model.encoders.{name}": encoder for name, encoder in encoders.items()}
    settings = [
        "data.name=photos",
        f"data.path={folder}",
        f"data.global_batch={batch}",
        f"data.workers={workers}",
        f"engine.zero={zero}",
    ]
    ending = [f"train.samples={batch * (steps + WARM_UP)}", "engine.threads=1", "evaluation.final=[]"]
    return compose(["method=clip", "data=own", "model=own", *settings, *tree_tokens(trees), *ending])


def ours(folder: Path, runs: Path, batch: int, zero: int, workers: int, steps: int) -> Reading:
    """The verbs of training/train.py up to the last step; no checkpoint, evaluation or release."""
    run = RunFolder(runs / f"zero{zero}")
    if int(os.environ["RANK"]) == 0:
        run.path.mkdir(parents=True, exist_ok=True)
        save_config(config_of(folder, batch, zero, workers, steps), run.config)
    World.current().barrier()
    reading = Reading()
    with Session(run) as session:
        done = session.resume()
        clock = _Clock()
        for batch_of_rank in session.batches(done):
            report = session.engine.step(batch_of_rank, session.step(done))
            done += 1
            session.record(done, batch_of_rank, report, stop=False)
            clock.tick(reading, counted=done > WARM_UP)
    return reading


def open_clip(folder: Path, folders: list[Path], batch: int, workers: int, steps: int) -> Reading:
    """open_clip's webdataset pipeline, ``train_one_epoch`` and ClipLoss."""
    multiprocessing.set_start_method("fork", force=True)  # its pipeline holds functions that cannot be pickled
    world, config = World.current(), config_of(folder, batch, 0, workers, steps)
    torch.manual_seed(0)
    model = Towers(build_method(config).model)
    optimizer = build_optimizer(parameter_groups(model, config.optim, config.model.encoders), config.optim)
    tokenizer = AutoTokenizer.from_pretrained(small_tokenizer(WORDS))
    losses, train = open_clip_training(folders)
    arguments = open_clip_arguments(world, batch)
    shards = sorted((folder / "train").glob("*.tar"))
    vars(arguments).update(
        train_data="::".join(map(str, shards)),
        train_num_samples=batch * (steps + WARM_UP + 1),
        workers=workers, seed=0,
        train_data_upsampling_factors=None, dataset_resampled=True,
    )  # fmt: skip
    reading, data = Reading(), _open_clip_data(arguments, tokenizer)
    data["train"].dataloader = _Ticking(data["train"].dataloader, steps, reading)
    loss = losses.ClipLoss(local_loss=True, gather_with_grad=True, rank=world.rank, world_size=world.size)
    replica = DistributedDataParallel(model) if world.size > 1 else model
    train.train_one_epoch(replica, data, loss, 0, optimizer, None, lambda step: None, None, arguments)
    return reading


class Towers(nn.Module):
    """The two encoders with open_clip's inputs and outputs."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.logit_scale = nn.Parameter(torch.tensor([2.66]))

    def forward(self, images: Tensor, texts: Tensor) -> dict[str, Tensor]:
        """images: [b, 3, h, w]. texts: int64 [b, tokens], padded with 0."""
        caption = {"input_ids": texts, "attention_mask": (texts != 0).long()}
        embeds = self.model(image={"pixel_values": images}, caption=caption).embeds
        features = {"image_features": F.normalize(embeds["image"]), "text_features": F.normalize(embeds["caption"])}
        return {**features, "logit_scale": self.logit_scale.exp()}


def _open_clip_data(arguments: Any, tokenizer: Any) -> dict[str, Any]:
    data: Any = import_module("open_clip_train.data")
    # Newer versions of webdataset mark the end of a tar, for which open_clip's grouping has no name.
    data.tar_file_expander = functools.partial(data.tar_file_expander, eof_value=None)
    transform = import_module("open_clip.transform").image_transform(
        224, is_train=True, mean=(0.5,) * 3, std=(0.5,) * 3
    )

    def tokens(text: str) -> Tensor:
        padded = tokenizer([text], padding="max_length", max_length=LENGTH, truncation=True, return_tensors="pt")
        return padded["input_ids"]

    return {"train": data.get_wds_dataset(arguments, transform, True, tokenizer=tokens)}


class _Ticking:
    """A loader whose batches tell the time; lets go of it after ``steps`` counted ones."""

    def __init__(self, loader: Any, steps: int, reading: Reading) -> None:
        self.loader, self.steps, self.reading = loader, steps, reading
        self.num_batches, self.num_samples = loader.num_batches, loader.num_samples

    def __iter__(self) -> Iterator[Any]:
        clock = _Clock()
        for number, batch in enumerate(self.loader):
            if number:
                clock.tick(self.reading, counted=number > WARM_UP)
            if number == self.steps + WARM_UP:
                return
            yield batch


class _Clock:
    """Wall clock and processor time of this process and its workers, from one step to the next."""

    def __init__(self) -> None:
        self.wall, self.processor = time.perf_counter(), _processor()

    def tick(self, reading: Reading, *, counted: bool) -> None:
        """The time since the last call, into ``reading`` if it counts."""
        wall, processor = time.perf_counter(), _processor()
        if counted:
            reading.seconds.append(wall - self.wall)
            reading.cpu_seconds.append(processor - self.processor)
        self.wall, self.processor = wall, processor


def _processor() -> float:
    times = [child.cpu_times() for child in psutil.Process().children(recursive=True)]
    return time.process_time() + sum(each.user + each.system for each in times)


def _samples(draw: np.random.Generator, count: int) -> Iterator[RawSample]:
    words = WORDS.split()
    for number in range(count):
        # Smooth shapes under some noise: about the bytes of a photo.
        coarse = Image.fromarray(draw.integers(0, 256, (16, 16, 3), dtype=np.uint8)).resize((256, 256))
        pixels = np.asarray(coarse, dtype=np.int16) + draw.integers(-12, 13, (256, 256, 3))
        file = io.BytesIO()
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(file, "JPEG", quality=85)
        caption = " ".join(draw.choice(words, size=int(draw.integers(5, 20))))
        yield {"__key__": f"{number:06d}", "jpg": file.getvalue(), "txt": caption.encode()}


def tree_tokens(trees: dict[str, dict[str, Any]]) -> list[str]:
    """Tokens of the command line that set these keys; trees: what stands below a path."""
    return [f"{path}.{key}={_written(value)}" for path, tree in trees.items() for key, value in tree.items()]


def _written(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_written(inner)}" for key, inner in value.items()) + "}"
    return "[" + ", ".join(map(str, value)) + "]" if isinstance(value, list) else str(value)
