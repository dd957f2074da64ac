"""Embeddings of a whole split, made by all ranks together.

Every rank runs the same number of forwards and of gathers, so this works on a live model whatever wraps it (under
ZeRO-3 a forward is itself a collective). Rows are gathered batch by batch: beside the model, the device holds
W x b rows at a time. Shapes: n samples of the split, b rows per batch and rank, W ranks, d width, C classes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mmpretrain.data.batch import Batch
from mmpretrain.distributed.world import World


@dataclass(frozen=True)
class Embeddings:
    """What a model makes of a split, in the split's order.

    ordinals: int64 [n], increasing. embeds: modality -> float32 [n, d]. logits: float32 [n, C] or None.
    labels: int64 [n] or None.
    """

    ordinals: np.ndarray
    embeds: dict[str, np.ndarray]
    logits: np.ndarray | None = None
    labels: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.ordinals)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode inside the block; afterwards every submodule has the mode it had before (frozen ones too)."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


def embed_split(model: nn.Module, batches: Iterable[Batch], world: World, device: torch.device) -> Embeddings:
    """Run ``model(**batch.inputs)`` over this rank's ``batches`` and give every rank the embeddings of all samples.

    ``batches``: as many on every rank, of equal size at each turn; ``positions`` are ordinals of the split. A sample
    that occurs more than once is kept once. One that could not be read is left out: its row has the ordinal of its
    substitute.
    Raises ValueError, on all ranks alike, for an empty split and for outputs that are not finite.
    """
    reals, integers = [], []
    widths: dict[str, int] = {}
    with evaluating(model), torch.no_grad():
        for batch in batches:
            columns = _columns(model(**batch.to(device).inputs))
            widths = {name: column.shape[1] for name, column in columns.items()}
            packed = torch.cat([column.float() for column in columns.values()], dim=1)
            reals.append(world.all_gather_rows(packed).cpu())
            integers.append(world.all_gather_rows(_integers(batch).to(device)).cpu())
    if not reals:
        raise ValueError("the split to evaluate has no samples: build its shards, or name another evaluation.split")
    return _assemble(torch.cat(reals).numpy(), torch.cat(integers).numpy(), widths)


def _columns(output: Any) -> dict[str, Tensor]:
    """Everything that is gathered, by name; the logits' name cannot be that of a modality."""
    logits = getattr(output, "logits", None)
    return {**output.embeds, **({} if logits is None else {"/logits": logits})}


def _integers(batch: Batch) -> Tensor:
    """int64 [b, 1 or 2]: the ordinal, and the label if there are labels."""
    return torch.stack([batch.positions] if batch.labels is None else [batch.positions, batch.labels], dim=1)


def _assemble(reals: np.ndarray, integers: np.ndarray, widths: dict[str, int]) -> Embeddings:
    ordinals, rows = np.unique(integers[:, 0], return_index=True)
    reals, integers = reals[rows], integers[rows]
    bad = np.flatnonzero(~np.isfinite(reals).all(axis=1))
    if len(bad):
        raise ValueError(
            f"the model's outputs are not finite for {len(bad)} of {len(reals)} samples (first: sample"
            f" {ordinals[bad[0]]}): training has diverged; lower optim.lr or set optim.clip"
        )
    edges = np.cumsum([0, *widths.values()])
    embeds = {name: reals[:, a:b] for name, a, b in zip(widths, edges, edges[1:], strict=False)}
    logits = embeds.pop("/logits", None)
    return Embeddings(ordinals, embeds, logits, integers[:, 1] if integers.shape[1] == 2 else None)
