"""Ranks whose texts and sequences are of different lengths: loss and gradients are those of one process."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from mmpretrain.assembly.build import build_processor
from mmpretrain.assembly.padding import pad_by_batch, padding_faults
from mmpretrain.assembly.sources import EncoderSources
from mmpretrain.config.augment import AugmentConfig
from mmpretrain.config.data import DataConfig, Kind, ModalityConfig
from mmpretrain.config.methods.names import METHODS
from mmpretrain.config.model import EncoderConfig, FusionConfig, ModelConfig
from mmpretrain.config.root import Config
from mmpretrain.data.batch import Batch
from mmpretrain.distributed.batch_norm import synchronize
from mmpretrain.distributed.replicas import average_gradients
from mmpretrain.distributed.world import World
from mmpretrain.engine.accumulate import MicroBatches
from mmpretrain.methods.build import build_method
from tests.methods.parity import worst_relative_error
from tests.methods.toys import make_step
from tests.models.small import BERT
from tests.rank_pool import Ranks
from tests.small_tokenizer import small_tokenizer

SAMPLES = 8
LENGTHS = (2, 3, 1, 2, 5, 19, 9, 4)  # words or steps; on two ranks the longest are 3 and 19
STEADY = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, "max_position_embeddings": 32}
CONFIG: dict[str, dict[str, Any]] = {"clip": {}, "comm": {"head_hidden": 8, "head_width": 6}}


def make_config(method: str) -> Config:
    """Captions and motions of up to 30 places, both augmented, by encoders without dropout."""
    motion = ModalityConfig(Kind.sequence, [30, 3], train=AugmentConfig(shuffle=0.5, drop=0.5, noise=0.5))
    caption = ModalityConfig(Kind.text, max_length=30, train=AugmentConfig(mask=0.3, delete=0.5))
    encoders = {
        "caption": EncoderConfig("bert", {**BERT, **STEADY}, tokenizer=small_tokenizer()),
        "motion": EncoderConfig("sequence", {"width": 8, "heads": 2, "layers": 2, "ff": 16, "dropout": 0.0}),
    }
    return Config(
        method=METHODS[method](**CONFIG[method]),
        data=DataConfig("made up", "nowhere", modalities={"caption": caption, "motion": motion}),
        model=ModelConfig(embed_dim=6, encoders=encoders, fusion=FusionConfig(width=8, heads=2)),
    )


def step(method_name: str, count: int) -> tuple[float, list[tuple[int, ...]], dict[str, Tensor]]:
    """Loss, lengths and averaged gradients of this rank's rows, padded by its batch, in ``count`` micro-batches."""
    config, world = make_config(method_name), World.current()
    torch.manual_seed(0)
    sources = EncoderSources(config)
    processor = build_processor(config, sources)
    method = build_method(config, processor, sources)
    assert pad_by_batch(config, processor, padding_faults(config, method.model, processor)) == ([], [])
    for part in (method.model, method.heads):
        part.double()
        synchronize(part, world)
    own = np.array_split(np.arange(SAMPLES), world.size)[world.rank]
    random = np.random.default_rng(0)
    motions = [random.standard_normal((length, 3)) for length in LENGTHS]
    words = ["a", "bold", "light", "seven", "three", "digit"]
    texts = [" ".join(words[(3 * i + k) % 6] for k in range(length)) for i, length in enumerate(LENGTHS)]
    inputs = processor(caption=[texts[i] for i in own], motion=[motions[i] for i in own])
    ids = torch.from_numpy(own)
    batch = method.augmenter.training_inputs(Batch(dict(inputs), None, ids, ids), make_step())
    batch = method.prepare(batch, make_step())
    parts = MicroBatches(batch, count, lambda _, part: method.encode(method.model, part))
    losses = parts.objective(lambda features: method.objective(features, make_step(), world))
    parts.backward(lambda product, _: product.backward())
    modules = (method.model, method.heads)
    named = {f"{i}.{n}": p for i, module in enumerate(modules) for n, p in module.named_parameters()}
    average_gradients(named.values(), world)
    shapes = [tuple(tensors["attention_mask"].shape) for tensors in batch.inputs.values()]
    return losses.total.item(), shapes, {name: p.grad for name, p in named.items() if p.grad is not None}


@pytest.mark.parametrize(("method", "count"), [("clip", 1), ("clip", 2), ("comm", 1)])
def test_gradients_are_those_of_one_process_on_the_whole_batch(ranks: Ranks, method: str, count: int) -> None:
    loss, shapes, right = step(method, 1)
    assert shapes == [(8, 24), (8, 24)]
    found = ranks(2, step, method, count)
    assert [shapes for _, shapes, _ in found] == [[(4, 8), (4, 8)], [(4, 24), (4, 24)]]
    assert sum(loss for loss, _, _ in found) / 2 == pytest.approx(loss, rel=1e-12)
    kept = {name: grad for name, grad in right.items() if grad.abs().max() > 1e-9}
    assert len(kept) > 20
    for _, _, grads in found:
        assert grads.keys() == right.keys()
        assert worst_relative_error({name: grads[name] for name in kept}, kept) < 1e-9
