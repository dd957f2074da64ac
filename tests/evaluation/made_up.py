"""Made-up embeddings, batches and a tiny model, small enough to know what must come out of an evaluation."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from mmpretrain.data.batch import Batch
from mmpretrain.evaluation.embeddings import Embeddings
from mmpretrain.models.configuration_mmpretrain import MMPretrainConfig
from mmpretrain.models.modeling_mmpretrain import MMPretrainModel

FEATURES = 6


def embeddings(classes: int = 4, each: int = 20, noise: float = 0.3, seed: int = 0) -> Embeddings:
    """Two modalities around one center per class (the centers do not depend on ``seed``)."""
    centers = np.random.default_rng(99).normal(size=(classes, 16))
    labels = np.arange(classes * each) % classes
    draw = np.random.default_rng(seed)
    embeds = {
        name: (centers[labels] + noise * draw.normal(size=(len(labels), 16))).astype(np.float32)
        for name in ("left", "right")
    }
    return Embeddings(np.arange(len(labels)), embeds, labels=labels)


def unrelated(samples: int, classes: int, seed: int = 0) -> Embeddings:
    """Two modalities and labels that have nothing to do with one another."""
    draw = np.random.default_rng(seed)
    embeds = {name: draw.normal(size=(samples, 16)).astype(np.float32) for name in ("left", "right")}
    return Embeddings(np.arange(samples), embeds, labels=draw.integers(classes, size=samples))


def tiny_model() -> MMPretrainModel:
    """A real model of two vector modalities with a classifier of three classes; weights from a fixed seed."""
    torch.manual_seed(0)
    encoder = {
        "architecture": "mlp",
        "config": {"input_size": FEATURES, "hidden_size": 8, "output_size": 8},
        "pool": "cls",
    }
    config = MMPretrainConfig({"left": encoder, "right": encoder}, classifier_hidden=4, num_labels=3, embed_dim=5)
    return MMPretrainModel(config)


def deal(samples: int, batch: int, rank: int, world_size: int, unreadable: tuple[int, ...] = ()) -> Iterator[Batch]:
    """This rank's share of a split: as many batches on every rank, the tail filled with the last sample.

    Sample 0 stands in for those that are ``unreadable``.
    """
    rounds = -(-samples // (batch * world_size))
    for number in range(rounds):
        first = (number * world_size + rank) * batch
        ordinals = torch.arange(first, first + batch).clamp(max=samples - 1)
        positions = torch.where(torch.isin(ordinals, torch.tensor(unreadable)), 0, ordinals)
        inputs = {name: {"values": _rows(positions, shift)} for shift, name in enumerate(("left", "right"))}
        yield Batch(inputs, labels=positions % 3, sample_ids=positions, positions=positions)


def _rows(positions: torch.Tensor, shift: int) -> torch.Tensor:
    columns = torch.arange(1, FEATURES + 1)
    return torch.sin(positions[:, None] * columns * 0.37 + shift).float()
