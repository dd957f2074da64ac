"""Training loops around the same two encoders: ours, bare DeepSpeed's, bare PyTorch's and open_clip's.

Each function runs on one rank of a new gloo group and gives a :class:`Reading` by loop. A step is everything between
two batches: forward, loss over all ranks, backward, clipping to a norm of 1, the update, and the loss as a number.

Shape legend: b samples of a rank.
"""

from __future__ import annotations

import logging
import math
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

from benchmarks.measure import Reading
from benchmarks.methods import TOKENS
from mmpretrain.config.compose import compose
from mmpretrain.config.root import Config
from mmpretrain.data.batch import Batch
from mmpretrain.data.step import Step
from mmpretrain.distributed.world import World
from mmpretrain.engine.engine import Engine
from mmpretrain.engine.optimizer import build_optimizer, parameter_groups
from mmpretrain.methods.build import build_method
from mmpretrain.run_folder import RunFolder
from mmpretrain.training.recorder import Recorder

OURS, BARE = "ours", "bare loop, our engine"
DEFAULTS, PYTORCH, OPEN_CLIP = "DeepSpeed by its defaults", "PyTorch", "open_clip's loop"
WARM_UP = 3  # the first steps allocate
IMAGE, TEXT = "left", "right"  # what stands for open_clip's two towers
Loop = Callable[[], object]  # one step


def config_of(batch: int, zero: int) -> Config:
    """Two ViTs of 6 layers, 192 wide, under CLIP. batch: of all ranks."""
    return compose([*TOKENS, "method=clip", f"data.global_batch={batch}", f"engine.zero={zero}"])


def ours_and_bare(batch: int, zero: int, steps: int) -> dict[str, Reading]:
    """Our step and record, and in turn with them a bare loop around the very same DeepSpeed engine."""
    config = config_of(batch, zero)
    torch.manual_seed(0)
    engine = Engine(config, build_method(config))
    with tempfile.TemporaryDirectory() as folder:
        loops = {OURS: our_loop(engine, Path(folder)), BARE: bare_loop(engine)}
        readings = _timed(loops, steps)
    engine.close()
    return readings


def our_loop(engine: Engine, folder: Path) -> Loop:
    """What training/train.py does with a batch, metrics and keys written to ``folder``."""
    config, world, batch = engine.config, engine.world, _batch(engine.config, engine.world)
    index = range(100 * config.data.global_batch)  # of which only the length is asked
    stream: Any = SimpleNamespace(
        index=index,
        plan=SimpleNamespace(by_source=lambda position: {}),
        key=lambda ordinal: f"{ordinal:08d}",
        store_counts=lambda: None,
    )
    recorder = Recorder(RunFolder(folder), config, stream, world)
    recorder.start(0)
    done = 0

    def step() -> None:
        nonlocal done
        epoch = done * config.data.global_batch / len(index)
        report = engine.step(batch, Step(done, epoch, 10.0, seed=0))
        done += 1
        recorder.record(done, batch, report, stop=False)

    return step


def bare_loop(engine: Engine) -> Loop:
    """Forward, a plain loss, ``backward`` and ``step`` of the engine's DeepSpeed, the scale beside it."""
    deepspeed, world, batch = engine.deepspeed, engine.world, _batch(engine.config, engine.world)
    scale = nn.Parameter(torch.tensor([-math.log(0.07)]))
    optimizer = torch.optim.AdamW([scale], lr=1e-3)

    def step() -> float:
        embeds = deepspeed(**batch.inputs).embeds
        loss = plain_loss(F.normalize(embeds[IMAGE]), F.normalize(embeds[TEXT]), scale.exp(), world)
        deepspeed.backward(loss)
        if engine.config.engine.zero == 0:  # elsewhere DeepSpeed clips
            nn.utils.clip_grad_norm_(deepspeed.module.parameters(), 1.0)
        deepspeed.step()
        if world.size > 1 and scale.grad is not None:
            dist.all_reduce(scale.grad)
            scale.grad.div_(world.size)
        optimizer.step()
        optimizer.zero_grad()
        return loss.item()

    return step


def deepspeed_defaults(batch: int, zero: int, steps: int) -> dict[str, Reading]:
    """DeepSpeed as its documentation starts it: the stage, clipping, torch's AdamW in its default form."""
    import deepspeed.ops

    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False  # compiling it takes a minute
    config, world, model = _plain(batch)
    settings = {
        "train_batch_size": batch,
        "gradient_clipping": 1.0,
        "zero_optimization": {"stage": zero},
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
    }
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    engine = deepspeed.initialize(model=model, optimizer=optimizer, config=settings)[0]
    images, texts = _rows(_batch(config, world))

    def step() -> float:
        loss = plain_loss(**engine(images, texts), world=world)
        engine.backward(loss)
        engine.step()
        return loss.item()

    return _timed({DEFAULTS: step}, steps)


def pytorch(batch: int, zero: int, steps: int) -> dict[str, Reading]:
    """Bare PyTorch with the same form of AdamW as our engine; DistributedDataParallel for several ranks."""
    config, world, model = _plain(batch)
    optimizer = _optimizer(config, model)
    replica = DistributedDataParallel(model) if world.size > 1 else model
    images, texts = _rows(_batch(config, world))

    def step() -> float:
        optimizer.zero_grad()
        loss = plain_loss(**replica(images, texts), world=world)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        return loss.item()

    return _timed({PYTORCH: step}, steps)


def open_clip(batch: int, folders: list[Path], steps: int) -> dict[str, Reading]:
    """open_clip's ``train_one_epoch`` and ClipLoss. folders: of ``others.install_open_clip_training()``."""
    config, world, model = _plain(batch)
    optimizer = _optimizer(config, model)
    replica = DistributedDataParallel(model) if world.size > 1 else model
    losses, train = open_clip_training(folders)
    loss = losses.ClipLoss(local_loss=True, gather_with_grad=True, rank=world.rank, world_size=world.size)
    reading, rows = Reading(), _rows(_batch(config, world))
    loader = _Batches(partial(_stamped, rows, steps, reading), batch, steps + WARM_UP)
    data = {"train": SimpleNamespace(set_epoch=lambda epoch: None, dataloader=loader)}
    arguments = open_clip_arguments(world, batch)
    train.train_one_epoch(replica, data, loss, 0, optimizer, None, lambda step: None, None, arguments)
    return {OPEN_CLIP: reading}


def open_clip_arguments(world: World, batch: int) -> Any:
    """What its loop reads of its command line: float32, a line of the log per step as ours."""
    return SimpleNamespace(
        device="cpu", precision="fp32", distill=False, accum_freq=1, skip_scheduler=False, grad_clip_norm=1.0,
        horovod=False, log_every_n_steps=1, world_size=world.size, rank=world.rank, local_rank=world.rank,
        batch_size=batch // world.size, wandb=False, log_local=False,
    )  # fmt: skip


def open_clip_training(folders: list[Path]) -> tuple[Any, Any]:
    """Its modules ``open_clip.loss`` and ``open_clip_train.train``, in a process that ends with this reading."""
    sys.path += [str(folder) for folder in folders]
    # torchvision's build for another torch lacks its compiled operators, and only asks for their names.
    library = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    open_clip_training.keep = library  # type: ignore[attr-defined]
    logging.getLogger().setLevel(logging.INFO)  # it formats a line per step, as ours
    return import_module("open_clip.loss"), import_module("open_clip_train.train")


class Plain(nn.Module):
    """The two encoders and the scale as one module with open_clip's outputs."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.logit_scale = nn.Parameter(torch.tensor([-math.log(0.07)]))

    def forward(self, images: Tensor, texts: Tensor) -> dict[str, Tensor]:
        """[b, ...] each -> features of unit length [b, d], and the scale."""
        embeds = self.model(**{IMAGE: {"pixel_values": images}, TEXT: {"pixel_values": texts}}).embeds
        features = {"image_features": F.normalize(embeds[IMAGE]), "text_features": F.normalize(embeds[TEXT])}
        return {**features, "logit_scale": self.logit_scale.exp()}


def plain_loss(image_features: Tensor, text_features: Tensor, logit_scale: Tensor, world: World) -> Tensor:
    """CLIP's loss of this rank's rows [b, d] against those of all ranks, by its formula."""
    labels = torch.arange(len(image_features)) + world.rank * len(image_features)
    images, texts = world.all_gather_rows(image_features), world.all_gather_rows(text_features)
    rows, columns = logit_scale * image_features @ texts.T, logit_scale * text_features @ images.T
    return (F.cross_entropy(rows, labels) + F.cross_entropy(columns, labels)) / 2


def _plain(batch: int) -> tuple[Config, World, Plain]:
    config = config_of(batch, 0)
    torch.manual_seed(0)
    return config, World.current(), Plain(build_method(config).model)


def _optimizer(config: Config, model: nn.Module) -> torch.optim.Optimizer:
    return build_optimizer(parameter_groups(model, config.optim, {}), config.optim)


def _batch(config: Config, world: World) -> Batch:
    rows = config.data.global_batch // world.size
    generator = torch.Generator().manual_seed(world.rank)
    inputs = {half: {"pixel_values": torch.randn(rows, 1, 8, 4, generator=generator)} for half in (IMAGE, TEXT)}
    ids = torch.arange(rows) + world.rank * rows
    return Batch(inputs, ids % 10, ids, ids, keys=tuple(map(str, ids.tolist())))


def _rows(batch: Batch) -> tuple[Tensor, Tensor]:
    return batch.inputs[IMAGE]["pixel_values"], batch.inputs[TEXT]["pixel_values"]


def _timed(loops: dict[str, Loop], steps: int) -> dict[str, Reading]:
    """Steps of all loops in turn, after some that are not counted."""
    readings = {name: Reading() for name in loops}
    for number in range(steps + WARM_UP):
        for name, step in loops.items():
            clock = _Clock()
            step()
            if number >= WARM_UP:
                clock.stop(readings[name])
    return readings


def _stamped(rows: tuple[Tensor, Tensor], steps: int, reading: Reading) -> Iterator[tuple[Tensor, Tensor]]:
    """The same batch again and again; what lies between two of them is a step."""
    for number in range(steps + WARM_UP):
        clock = _Clock()
        yield rows
        if number >= WARM_UP:
            clock.stop(reading)


class _Clock:
    def __init__(self) -> None:
        if dist.is_initialized():
            dist.barrier()
        self.wall, self.processor = time.perf_counter(), time.process_time()

    def stop(self, reading: Reading) -> None:
        """The time since the start, into ``reading``."""
        reading.seconds.append(time.perf_counter() - self.wall)
        reading.cpu_seconds.append(time.process_time() - self.processor)


class _Batches:
    """What open_clip's loop asks of a loader. batch: samples of all ranks."""

    def __init__(self, batches: Callable[[], Iterator[Any]], batch: int, steps: int) -> None:
        self._batches = batches
        self.num_batches, self.num_samples = steps, batch * steps

    def __iter__(self) -> Iterator[Any]:
        return self._batches()
