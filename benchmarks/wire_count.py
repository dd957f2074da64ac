"""Bytes that a rank sends, counted at torch.distributed's calls, and what the contrastive loss should send.

A collective of n bytes per rank (n: the rank's own part of a gather, its own part of the result of a reduce-scatter)
is counted at what the textbook algorithms send: all-gather and reduce-scatter (W - 1) n, all-reduce 2 (W - 1) / W n.
Point-to-point messages count as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any
from unittest.mock import patch

import torch
import torch.distributed as dist
from torch import Tensor

from mmpretrain.config.objective import Negatives, ObjectiveConfig, Products
from mmpretrain.distributed import collectives
from mmpretrain.distributed.world import World
from mmpretrain.losses.contrastive import Diagonal, Labels, Pair, contrastive


@dataclass
class Counter:
    """sent: bytes so far."""

    sent: float = 0.0

    def add(self, tensor: Tensor, factor: float) -> None:
        """``factor`` times the bytes of a tensor."""
        self.sent += factor * tensor.numel() * tensor.element_size()


@contextmanager
def counted() -> Iterator[Counter]:
    """Counts what mmpretrain.distributed sends while it lasts; the calls go through."""
    counter = Counter()
    others = dist.get_world_size() - 1
    real_gather, real_scatter = collectives._gather_into, collectives._reduce_scatter_into
    real_reduce, real_exchange = dist.all_reduce, dist.batch_isend_irecv

    def gather(out: Tensor, own: Tensor, **options: Any) -> Any:
        counter.add(own, others)
        return real_gather(out, own, **options)

    def scatter(own: Tensor, rows: Tensor, **options: Any) -> Any:
        counter.add(own, others)
        return real_scatter(own, rows, **options)

    def reduce(values: Tensor, *arguments: Any, **options: Any) -> Any:
        counter.add(values, 2 * others / (others + 1))
        return real_reduce(values, *arguments, **options)

    def exchange(operations: list[dist.P2POp]) -> Any:
        for operation in operations:
            if operation.op is dist.isend:
                counter.add(operation.tensor, 1)
        return real_exchange(operations)

    with (
        patch.object(collectives, "_gather_into", gather),
        patch.object(collectives, "_reduce_scatter_into", scatter),
        patch.object(dist, "all_reduce", reduce),
        patch.object(dist, "batch_isend_irecv", exchange),
    ):
        yield counter


@dataclass(frozen=True)
class Load:
    """A contrastive loss of one step. rows: b, of a rank. pairs share no side; their embeddings have ``width``.

    copies: of every sample in the batch, recognized by ids; 0: no ids are given. labels, masks: all pairs have them.
    further: hard negatives of every sample, with masks of their own. margin: whether likely false negatives are left
    out.
    """

    rows: int
    width: int
    pairs: int
    negatives: Negatives
    products: Products = Products.float32
    metrics: bool = True
    copies: int = 0
    labels: bool = False
    masks: bool = False
    further: int = 0
    margin: bool = False

    def expected(self, size: int) -> float:
        """Bytes that each of ``size`` ranks sends in forward and backward, by the formula of docs/contrastive.md."""
        if self.negatives is Negatives.local:
            return 0
        sides = self.pairs * self.width * (1 + self.further)
        embeddings, gradients = sides * (2 if self.products is Products.bfloat16 else 4), sides * 4
        about = 8 * (self.copies > 1 and not self.labels)
        about += self.pairs * (8 * self.labels + 2 * self.masks + self.further)
        forward = embeddings + about + self.pairs * (16 + 4 * (self.metrics or self.margin))
        backward = gradients + about + self.pairs * 20 + embeddings * (self.negatives is Negatives.ring)
        once = 8 * (self.copies > 0)
        counts = 2 * 4 * self.pairs * (self.masks + 4 * (self.margin and self.metrics)) * (size - 1) / size
        return (size - 1) * self.rows * (forward + backward + once) + counts

    def step(self, world: World) -> None:
        """Forward and backward pass on random embeddings."""
        sides = torch.randn(2, self.pairs, self.rows, self.width, requires_grad=True)
        targets = Labels(torch.arange(self.rows) % 3) if self.labels else Diagonal()
        valid = torch.arange(self.rows) % 2 == 0 if self.masks else None
        further: list[Tensor | None] = [None] * self.pairs
        there = torch.rand(self.rows, self.further) > 0.5 if self.further else None
        if self.further:
            further = list(torch.randn(self.pairs, self.rows, self.further, self.width, requires_grad=True))
        pairs = [
            Pair(query, key, targets, query_valid=valid, key_negatives=more, key_negatives_valid=there)
            for query, key, more in zip(sides[0], sides[1], further, strict=True)
        ]
        margin = 0.1 if self.margin else None
        settings = ObjectiveConfig(negatives=self.negatives, products=self.products, false_negative_margin=margin)
        numbers = torch.arange(self.rows) + world.rank * self.rows
        ids = numbers // self.copies if self.copies else None
        scale = torch.tensor([10.0], requires_grad=True)
        losses = contrastive(pairs, scale=scale, world=world, settings=settings, sample_ids=ids, metrics=self.metrics)
        torch.stack([outcome.loss for outcome in losses]).sum().backward()


def sent_in_a_step(load: Load) -> float:
    """On a rank of a group: the bytes that it sends."""
    with counted() as counter:
        load.step(replace(World.current(), even=True))
    return counter.sent


Run = Callable[..., list[Any]]


def check(load: Load, size: int, run: Run) -> float:
    """Bytes that every rank sends; ``run`` as of tests.rank_pool. Raises AssertionError when the formula differs."""
    expected = load.expected(size)
    sent = run(size, sent_in_a_step, load)
    assert sent == [expected] * size, f"{load} on {size} ranks: sent {sent}, the formula says {expected}"
    return expected
