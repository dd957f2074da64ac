"""C-MCR in the synthetic world: two spaces that never saw the same samples are connected through b alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from mmpretrain.config.methods.names import CmcrConfig
from mmpretrain.config.root import Config
from mmpretrain.data.batch import Batch
from mmpretrain.data.step import Step
from mmpretrain.distributed.world import World
from mmpretrain.embedding.soft_retrieval import soft_retrieve
from mmpretrain.evaluation.retrieval import exact_scores, pair_places
from mmpretrain.losses.contrastive import Pair, contrastive
from mmpretrain.losses.similarity import unit_rows
from mmpretrain.methods.build import build_method
from mmpretrain.models.heads_mmpretrain import VectorMLP
from shards import world as builder
from tests.methods.toys import EMBEDDINGS, make_config

pytestmark = pytest.mark.slow

BATCH, WIDTH, ALONE = 512, 64, World.single()
Rows = Mapping[str, Tensor]


def descend(parameters: list[Tensor], loss: Callable[[int, Tensor], Tensor], steps: int, lr: float) -> None:
    """Adam with a cosine, on batches of 512 of 20,000 samples."""
    optimizer = torch.optim.Adam(parameters, lr=lr)
    draw = torch.Generator().manual_seed(0)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = lr * (1 + math.cos(math.pi * step / steps)) / 2
        optimizer.zero_grad()
        loss(step, torch.randint(builder.SAMPLES, (BATCH,), generator=draw)).backward()
        optimizer.step()


def space(rows: Rows) -> dict[str, VectorMLP]:
    """Encoders of two modalities, trained on pairs."""
    encoders = {name: VectorMLP(builder.FEATURES, 128, WIDTH) for name in rows}

    def loss(step: int, chosen: Tensor) -> Tensor:
        pair = Pair(*(encoders[name](rows[name][chosen]) for name in rows))
        return contrastive([pair], scale=1 / 0.03, world=ALONE, metrics=False)[0].loss

    descend([p for encoder in encoders.values() for p in encoder.parameters()], loss, 800, 2e-3)
    return encoders


def connect(embeddings: Rows, test: Rows, **settings: Any) -> float:
    """R@1 of c from a after 600 steps of the method."""
    config = connection(CmcrConfig(**settings))
    torch.manual_seed(0)
    method = build_method(config)

    def loss(step: int, chosen: Tensor) -> Tensor:
        positions = torch.arange(step * BATCH, (step + 1) * BATCH)
        batch = Batch({n: {"values": rows[chosen]} for n, rows in embeddings.items()}, None, chosen, positions)
        at = Step(step, 0.0, 1.0, 0)
        return method.objective(method.encode(method.model, method.prepare(batch, at)), at, ALONE).total

    descend(list(method.model.parameters()), loss, 600, 1e-3)
    inputs = {"first_shared": {"values": test["a"]}, "second_shared": {"values": test["c"]}}
    with torch.no_grad():
        a, c = (unit_rows(rows).numpy() for rows in method.model.eval()(**inputs).embeds.values())
    return exact_scores(*pair_places(a, c), (1,))["recall@1"]


def connection(settings: CmcrConfig) -> Config:
    """Of two spaces of this width."""
    config = make_config("cmcr")
    sized = {name: replace(config.data.modalities[name], size=[WIDTH]) for name in EMBEDDINGS}
    return replace(config, method=settings, data=replace(config.data, modalities=sized))


@torch.no_grad()
def encode(encoder: VectorMLP, rows: np.ndarray) -> Tensor:
    """Unit rows."""
    return unit_rows(encoder(torch.from_numpy(rows)))


@pytest.mark.parametrize("seed", [0, 1])
def test_partners_bring_what_the_shared_modality_alone_does_not(seed: int) -> None:
    """Not connected << shared rows only < C-MCR without noise, by .08; no less with noise; true pairs of a and c bound
    it. (What the intra term gains, this world does not show.)"""
    world = builder.ThreeModalityWorld.of(seed)
    torch.manual_seed(seed)
    pairs = {name: world.draw(name, builder.SAMPLES) for name in ("ab", "bc")}
    first, second = (space({n: torch.from_numpy(r) for n, r in rows.items()}) for rows in pairs.values())
    corpus, triples = world.draw("corpus", builder.SAMPLES)["b"], world.draw("triples", 1000)
    shared = [encode(encoders["b"], corpus) for encoders in (first, second)]
    memories = [
        encode(encoders[name], world.draw(f"memory_{name}", builder.SAMPLES)[name])
        for encoders, name in ((first, "a"), (second, "c"))
    ]
    partners = [
        torch.cat([soft_retrieve(part, memory, temperature=0.01, world=ALONE).values for part in rows.split(1000)])
        for rows, memory in zip(shared, memories, strict=True)
    ]
    embeddings = dict(zip(EMBEDDINGS, [*shared, *partners], strict=True))
    test = {"a": encode(first["a"], triples["a"]), "c": encode(second["c"], triples["c"])}
    only = connect(embeddings, test, partner_weight=0.0, intra=0.0, noise=0.0)
    still = connect(embeddings, test, noise=0.0)
    whole = connect(embeddings, test)
    own = world.draw("ac", builder.SAMPLES)
    true = [encode(first["a"], own["a"]), encode(second["c"], own["c"])]
    bound = connect(dict(zip(EMBEDDINGS, [*true, *true], strict=True)), test, partner_weight=0.0, intra=0.0, noise=0.0)
    query, item = (rows.numpy() for rows in test.values())
    unconnected = exact_scores(*pair_places(query, item), (1,))["recall@1"]
    assert unconnected < 0.02 and 0.3 < only < still - 0.08 and whole > still - 0.03 and whole > only + 0.08
    assert bound > max(still, whole)
