"""How long gradients live in a backward pass, and what is copied to reduce them: as DeepSpeed does it, by stage."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from mmpretrain.config.root import Config
from mmpretrain.engine.gathering import BUCKET, gathering_limits
from mmpretrain.training.prediction.layout import FULL, Layout

WHOLE = 500_000_000  # numbers that are copied together where nothing is partitioned


class Reduction:
    """Watches the gradients of a traced model. Instead of calling collectives it makes the copies that they are given.

    places: id of a parameter of the layout -> the one that is traced in its place. gpu: whether stages 1 and 2 copy
    gradients into buffers as they come, and keep their own part alone.
    """

    def __init__(self, config: Config, layout: Layout, places: dict[int, nn.Parameter], ranks: int, gpu: bool) -> None:
        self._stage, self._ranks, self._coalesced = config.engine.zero, ranks, config.engine.coalesce_reduction
        self._buffered = gpu and self._stage in (1, 2)
        zero = config.engine.deepspeed.get("zero_optimization") or {}
        self._limit = int(zero.get("reduce_bucket_size", BUCKET)) if self._stage else WHOLE
        if self._stage == 3:
            self._limit = gathering_limits(config, layout.numel, ranks)["reduce_bucket_size"]
        self._bytes: dict[nn.Parameter, int] = {}  # of each number on the wire
        self._own: set[nn.Parameter] = set()  # what rank 0 steps, at stages 1 and 2
        for group in layout.groups:
            place, end = 0, group.aligned(ranks) // ranks
            for old in group.parameters:
                self._bytes[places[id(old)]] = layout.moved(old)
                self._own |= {places[id(old)]} if place < end else set()
                place += old.numel()
        for parameter in self._bytes:
            parameter.register_post_accumulate_grad_hook(self._arrived)
        self._waiting: dict[int, list[nn.Parameter]] = {size: [] for size in set(self._bytes.values())}
        self._handled: set[nn.Parameter] = set()
        self._reduces = False
        # Stage 1 keeps all gradients until the backward pass is over, unless it reduces beside it.
        self._at_once = self._stage > 1 or (self._stage == 1 and bool(zero.get("overlap_comm")))
        self.most = 0  # bytes of gradients that were there when a backward pass ended
        self._sums: list[torch.Tensor | None] = []

    @contextmanager
    def backward(self, *, last: bool) -> Iterator[None]:
        """Around a backward pass; last: of the step."""
        # Only at the boundary do stages 0 and 1 reduce; one rank alone has nothing to.
        self._reduces = self._at_once and self._ranks > 1 and (last or (self._stage > 1 and not self._coalesced))
        buffers = [torch.empty(self._limit) for _ in self._waiting] if self._buffered and self._ranks > 1 else []
        yield
        self.most = max(self.most, sum(FULL * p.grad.numel() for p in self._bytes if p.grad is not None))
        if last and self._ranks > 1:
            self._reduces = True
            for parameter in self._bytes:
                if parameter not in self._handled:
                    self._arrived(parameter)
        for size in self._waiting:
            self._reduce(size)
        if not last and self._stage == 2 and self._reduces:
            # What was reduced is kept apart until the last micro-batch's is added to it.
            self._sums = [parameter.grad for parameter in self._own]
            for parameter in self._own:
                parameter.grad = None
        self._handled.clear()
        del buffers

    def _arrived(self, parameter: nn.Parameter) -> None:
        if not self._reduces or parameter.grad is None:
            return
        size = self._bytes[parameter]
        if sum(waiting.numel() for waiting in self._waiting[size]) + parameter.numel() > self._limit:
            self._reduce(size)
        self._waiting[size].append(parameter)
        self._handled.add(parameter)

    def _reduce(self, size: int) -> None:
        waiting, self._waiting[size] = self._waiting[size], []
        numel = sum(parameter.numel() for parameter in waiting)
        low = size < FULL
        # At 1 and 2 a copy of a lower type is a further one.
        flat = torch.empty(numel, dtype=torch.bfloat16 if low and self._stage == 3 else torch.float32)
        sent = torch.empty(numel, dtype=torch.bfloat16) if low and self._stage < 3 else None
        for parameter in waiting:
            if self._stage == 3 or self._buffered or (self._stage == 2 and parameter not in self._own):
                parameter.grad = None  # what stays of it lies in a partition that is there all the time
        del flat, sent
