"""Short real trainings inside living ranks: the engine on made-up batches, keyed by stream position."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
import torch
from accelerate.state import AcceleratorState, GradientState
from deepspeed.runtime import torch_autocast
from torch import Tensor

from mmpretrain.config.compose import compose
from mmpretrain.config.root import Config
from mmpretrain.data.batch import Batch
from mmpretrain.data.step import Step
from mmpretrain.distributed.world import World
from mmpretrain.engine import checkpoint
from mmpretrain.engine.engine import Engine, mean_over_ranks
from mmpretrain.methods.base import Method
from mmpretrain.methods.build import build_method
from tests.small_tokenizer import small_tokenizer

GLOBAL_BATCH = 16
MODALITIES = ("left", "right", "caption")
EMBEDDINGS = ("first_shared", "second_shared", "first_partner", "second_partner")
FEATURES = 12  # of embeddings
TINY = [
    "experiment=digits",
    f"data.global_batch={GLOBAL_BATCH}",
    "train.samples=320",
    "optim.warmup_samples=64",
    "model.embed_dim=16",
    "model.classifier_hidden=16",
    # Partition every tensor, however small: real ZeRO-3.
    "engine.deepspeed.zero_optimization.stage3_param_persistence_threshold=0",
    *(f"model.encoders.{half}.config.num_hidden_layers=1" for half in MODALITIES),
]


def tiny_config(*tokens: str) -> Config:
    """A small three-modality config without dropout."""
    config = compose([*TINY, f"model.encoders.caption.tokenizer={small_tokenizer()}", *tokens])
    if hasattr(config.method, "mix_group"):
        config.method.mix_group = config.method.mix_group or 4
    return config


def start(config: Config, *, first: bool = True) -> Engine:
    """An engine in a rank that may have had another one before.

    first: as at a run's first start, where the method may look at data; otherwise a checkpoint is to be loaded.
    """
    forget_engines()
    torch.manual_seed(config.seed)
    method = build_method(config)
    return Engine(config, method, partial(_initialize, method, config) if first else None)


def forget_engines() -> None:
    """Undo what accelerate and DeepSpeed keep of an engine for the rest of a process."""
    AcceleratorState._reset_state(True)
    GradientState._reset_state()
    torch_autocast.TORCH_AUTOCAST_INITIALIZED = False
    torch_autocast.TORCH_AUTOCAST_DTYPE = None


def split(config: Config, world: World) -> Iterator[Batch]:
    """This rank's rows of 8 global batches."""
    for index in range(8):
        yield make_batch(index, world.rank, world.size, modalities=config.data.modalities)


def _initialize(method: Method, config: Config, world: World) -> None:
    method.initialize(lambda _: split(config, world), world)


def make_batch(
    index: int, rank: int, world_size: int, *, repeat: bool = True, modalities: Collection[str] = MODALITIES
) -> Batch:
    """This rank's rows of global batch ``index``; row content depends on the stream position only.

    repeat: the last row of every global batch is its first again, as where two epochs meet.
    """
    local = GLOBAL_BATCH // world_size
    first = index * GLOBAL_BATCH + rank * local
    positions = torch.arange(first, first + local)
    last = (index + 1) * GLOBAL_BATCH - 1
    ids = torch.tensor([index * GLOBAL_BATCH if repeat and p == last else p for p in positions.tolist()])
    labels = ids % 10
    inputs = {
        "left": {"pixel_values": _rows(ids, "left", 1, 8, 4)},
        "right": {"pixel_values": _rows(ids, "right", 1, 8, 4)},
        "caption": {
            "input_ids": (_rows(ids, "caption", 16).abs() * 4).long().clamp(max=9),
            "attention_mask": torch.ones(local, 16, dtype=torch.long),
        },
    }
    inputs |= {name: {"values": _rows(ids, name, FEATURES)} for name in EMBEDDINGS if name in modalities}
    inputs = {name: inputs[name] for name in modalities}
    return Batch(inputs, labels, ids, positions, keys=tuple(map(str, ids.tolist())))


def step_of(index: int, config: Config) -> Step:
    """Step ``index`` of a run over a dataset of two global batches."""
    size = 2 * GLOBAL_BATCH
    return Step(index, index * GLOBAL_BATCH / size, config.train.samples / size, config.seed)


def train(tokens: list[str], steps: int) -> list[float]:
    """The loss, averaged over the ranks, of each of ``steps`` steps."""
    config = tiny_config(*tokens)
    return _run(start(config), range(steps))


@dataclass
class Outcome:
    """What a run came to. losses: per step, averaged over the ranks. norms: gradient norms per step.

    weights: the model's (on rank 0; empty elsewhere) and the heads' (``heads.NAME``). scale: the last loss scale.
    """

    losses: list[float]
    norms: list[float]
    weights: dict[str, Tensor]
    scale: float | None


def outcome(config: Config, steps: int, before: Callable[[Engine], None] | None = None) -> Outcome:
    """Train for ``steps`` steps; ``before`` sees the new engine first."""
    engine = start(config)
    if before:
        before(engine)
    norms: list[float] = []
    losses = _run(engine, range(steps), norms)
    heads = {f"heads.{name}": tensor.detach() for name, tensor in engine.method.heads.state_dict().items()}
    scale = engine.loss_scale.value if engine.loss_scale else None
    return Outcome(losses, norms, (engine.state_dict() or {}) | heads, scale)


def wrap(owner: object, method: str, around: Callable[..., object]) -> None:
    """From now on ``owner.METHOD(...)`` is ``around(original, ...)``."""
    setattr(owner, method, partial(around, getattr(owner, method)))


def check_equal(ours: Outcome, right: Outcome) -> None:
    """Losses to 1e-5, gradient norms to 1e-4 of their value, weights of model and heads to 1e-4."""
    assert max(abs(a - b) for a, b in zip(ours.losses, right.losses, strict=True)) <= 1e-5
    assert ours.norms == pytest.approx(right.norms, rel=1e-4)
    assert ours.weights.keys() == right.weights.keys()
    for name, weight in right.weights.items():
        torch.testing.assert_close(ours.weights[name], weight, rtol=1e-4, atol=1e-5, msg=name)


def refusal(function: Callable[..., object], *arguments: object) -> str:
    """The message with which ``function(*arguments)`` ends on every rank alike; the ranks stay usable."""
    try:
        function(*arguments)
    except (ValueError, checkpoint.CheckpointError) as error:
        return str(error)
    raise AssertionError(f"{function.__name__}{arguments} was not refused")


def train_and_resume(tokens: list[str], steps: int, folder: str) -> tuple[str, str, list[float], list[float]]:
    """Weights and losses of an uninterrupted run that saves halfway, and of a new engine that goes on from there."""
    config, half = tiny_config(*tokens), steps // 2
    engine = start(config)
    losses = _run(engine, range(half))
    checkpoint.save(engine, Path(folder), half, {"position": half * GLOBAL_BATCH})
    losses += _run(engine, range(half, steps))
    straight = weights_digest(engine)
    again = start(config, first=False)
    manifest = checkpoint.load_newest(again, Path(folder))
    assert manifest is not None and manifest["step"] == half
    resumed = _run(again, range(half, steps))
    return straight, weights_digest(again), losses[half:], resumed


def weights_digest(engine: Engine) -> str:
    """A hash of the weights of model, heads and critics, whole (a collective); empty on ranks other than 0."""
    state = engine.state_dict()
    digest = hashlib.sha256()
    for tensors in (state or {}, engine.method.heads.state_dict(), engine.method.critics.state_dict()):
        for name, tensor in sorted(tensors.items()):
            digest.update(name.encode() + tensor.detach().numpy().tobytes())
    return digest.hexdigest() if state else ""


def _run(engine: Engine, indices: range, norms: list[float] | None = None) -> list[float]:
    rank, world_size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    losses = []
    for index in indices:
        batch = make_batch(index, rank, world_size, modalities=engine.config.data.modalities)
        report = engine.step(batch, step_of(index, engine.config))
        losses.append(mean_over_ranks({"loss": report.losses["loss"]}, engine.world)["loss"])
        if norms is not None:
            norms.append(report.grad_norm)
    return losses


def _rows(ids: Tensor, name: str, *shape: int) -> Tensor:
    rows = []
    for sample in ids.tolist():
        seed = int.from_bytes(hashlib.blake2b(f"{name}{sample}".encode(), digest_size=6).digest(), "big")
        rows.append(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)))
    return torch.stack(rows)
