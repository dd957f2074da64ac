"""The prediction of a run: what each rank will hold, what a step will move, what a checkpoint will take.

prediction = predict(config, sources, model, ranks, gpu=True)      # model: on the meta device, as the preflight's
prediction.to_json()
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import asdict, dataclass
from typing import Any

import torch

from mmpretrain.assembly.sources import EncoderSources
from mmpretrain.config.objective import Negatives, critic_bytes, held_bytes
from mmpretrain.config.root import Config
from mmpretrain.data.step import Step
from mmpretrain.methods.base import Features
from mmpretrain.models.modeling_mmpretrain import MMPretrainModel
from mmpretrain.training.prediction.layout import layout_of
from mmpretrain.training.prediction.made_up import made_up_batch, made_up_method
from mmpretrain.training.prediction.memory import Memory, memory, standing
from mmpretrain.training.prediction.storage import Checkpoint, checkpoint
from mmpretrain.training.prediction.trace import NotTracedError, Traced, traced
from mmpretrain.training.prediction.wire import FEW, AsInTraining, Wire, gradient_bytes, objective_bytes


@dataclass(frozen=True)
class Prediction:
    """What a run will need. memory, wire: None where the encoders could not be traced; ``untraced`` says why."""

    ranks: int
    parameters: int
    trained: int
    checkpoint: Checkpoint
    memory: Memory | None
    wire: Wire | None
    untraced: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        found = {**asdict(self), "wire": None}
        if self.wire is not None:
            found["wire"] = {**asdict(self.wire), "payloads": self.wire.payloads, "sent": self.wire.sent}
        return found


def predict(config: Config, sources: EncoderSources, model: MMPretrainModel, ranks: int, *, gpu: bool) -> Prediction:
    """What ``config`` will need on so many ranks. gpu: whether they are GPUs, and not CPUs.

    model: on the meta device, with what is frozen and adapted; spoiled afterwards.
    """
    config = _with_small_groups(config)
    model.train()
    method, layout = made_up_method(config, model), layout_of(config, model)
    parameters = sum(p.numel() for p in model.parameters())
    fixed = standing(config, layout, method.heads, method.critics, ranks)
    saved = checkpoint(config, layout, model, (method.heads, method.critics), ranks)
    step = Step(0, 0.0, max(1.0, config.train.samples / config.data.global_batch), config.seed)
    prepared = [method.prepare(made_up_batch(config, sources, rows), step) for rows in (FEW, 2 * FEW)]
    try:
        trace = traced(config, method, layout, prepared[0], config.data.global_batch // ranks, ranks, gpu)
    except NotTracedError as error:
        return Prediction(ranks, parameters, layout.trained, saved, None, None, str(error))
    features = {len(batch): _random(trace, batch) for batch in prepared}
    method.contrast = asked = AsInTraining.of(config)
    moved = objective_bytes(config, method, features.__getitem__, ranks)
    loss = _loss_bytes(config, model, ranks, asked.width, gpu)
    used = memory(config, layout, fixed, trace, loss, method.heads, ranks, gpu)
    wire = Wire(gradient_bytes(config, layout, ranks), moved, ranks)
    return Prediction(ranks, parameters, layout.trained, saved, used, wire)


def _loss_bytes(config: Config, model: MMPretrainModel, ranks: int, asked: int, gpu: bool) -> int:
    """What the objective holds. asked: floats of a sample that its losses asked for room for, 0 if none did."""
    if not config.method.contrasts:
        return 0
    widths = model.embed_sizes
    exchange = config.method.exchange(widths).with_hard_negatives(widths, config.data, config.objective)
    rows, width = config.data.global_batch, asked or exchange.width
    held = held_bytes(config.objective, rows, ranks, width, exchange.pairs, rings=exchange.rings, gpu=gpu)
    # On processors a strip is smaller than what is reckoned for tiles.
    pairs = rows // ranks * (rows // ranks if config.objective.negatives is Negatives.local else rows)
    strip = min(critic_bytes(config.objective, gpu=True), 4 * exchange.strip_width * pairs)
    return held + (strip if gpu else 0)


def _with_small_groups(config: Config) -> Config:
    """The same for batches of few rows: what is mixed in groups is mixed in small ones."""
    config = deepcopy(config)
    if getattr(config.method, "mix_group", None) is not None:
        config.method.mix_group = FEW  # type: ignore[attr-defined]
    return config


def _random(trace: Traced, batch: Any) -> Features:
    """Features of the shapes that the encoders make, with numbers that no loss refuses."""
    generator = torch.Generator().manual_seed(0)
    tensors = [torch.randn((len(batch), *t.shape[1:]), generator=generator) for t in trace.outputs.tensors]
    return trace.outputs.with_tensors(tensors, batch)
