"""Embeddings of texts that are no samples: class names, and all captions of a split.

Every rank encodes its share in as many forwards as the others, so this works on a live model whatever wraps it (see
embeddings.py). Shapes: n texts, b texts per forward and rank, W ranks, d width.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from mmpretrain.distributed.modes import evaluating
from mmpretrain.distributed.world import World

# Modality -> texts -> the inputs of the model: what MMPretrainProcessor does.
Processor = Callable[..., Mapping[str, Mapping[str, Tensor]]]
FILLING = "a"  # a text that any tokenizer makes something of


def embed_texts(
    model: nn.Module,
    processor: Processor,
    modalities: Sequence[str],
    texts: Sequence[str],
    world: World,
    device: torch.device,
    batch: int = 256,
) -> dict[str, np.ndarray]:
    """Text modality -> float32 [n, d], the embeddings of ``texts``, the same on every rank; a collective.

    Every rank passes the same texts. Raises ValueError, on all ranks alike, for embeddings that are not finite.
    """
    return {name: _embed(model, processor, name, list(texts), world, device, batch) for name in modalities}


def embed_own_texts(
    model: nn.Module,
    processor: Processor,
    modality: str,
    texts: Sequence[str],
    world: World,
    device: torch.device,
    batch: int = 256,
) -> tuple[np.ndarray, np.ndarray]:
    """(float32 [all, d], int64 [W]): the embeddings of all ranks' ``texts``, one rank's after another's, and how many
    each has. A collective; every rank passes texts of its own, none if it has none.

    Raises ValueError, on all ranks alike, where no rank has any, and for embeddings that are not finite.
    """
    counts = world.all_gather_rows(torch.tensor([len(texts)], device=device)).cpu().numpy()
    if not counts.sum():
        raise ValueError(
            f"the split to evaluate has no texts for {modality}: leave retrieval out, or name another split"
        )
    rounds, found = -(-int(counts.max()) // batch), []
    for number in range(rounds):
        part = list(texts[number * batch : (number + 1) * batch])
        filled = part + [FILLING] * (batch - len(part))  # every rank has a forward, of as many rows
        found.append(world.all_gather_rows(_forward(model, processor, modality, filled, device)).cpu())
    rows = (
        torch.stack(found)
        .reshape(rounds, world.size, batch, -1)
        .transpose(0, 1)
        .reshape(world.size, rounds * batch, -1)
    )
    kept = torch.cat([rows[rank, : int(count)] for rank, count in enumerate(counts)]).numpy()
    return _finite(kept, modality), counts


def _embed(
    model: nn.Module,
    processor: Processor,
    modality: str,
    texts: list[str],
    world: World,
    device: torch.device,
    batch: int,
) -> np.ndarray:
    size = -(-len(texts) // world.size)
    share = texts[world.rank * size : (world.rank + 1) * size]
    return embed_own_texts(model, processor, modality, share, world, device, min(batch, size))[0]


def _forward(model: nn.Module, processor: Processor, modality: str, texts: list[str], device: torch.device) -> Tensor:
    """float32 [b, d]."""
    with evaluating(model), torch.no_grad():
        inputs = {name: tensor.to(device) for name, tensor in processor(**{modality: texts})[modality].items()}
        rows: Tensor = model(**{modality: inputs}).embeds[modality]
    return rows.float()


def _finite(rows: np.ndarray, modality: str) -> np.ndarray:
    if bad := int((~np.isfinite(rows)).any(axis=1).sum()):
        raise ValueError(
            f"the model's embeddings of {modality} are not finite for {bad} of {len(rows)} texts: training has"
            " diverged; lower optim.lr or set optim.clip"
        )
    return rows
