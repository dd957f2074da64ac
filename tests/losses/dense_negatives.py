"""Hard negatives and the margin of likely false negatives written out with whole matrices, on one process.

Independent of mmpretrain.losses on purpose, as oracle.py is.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mmpretrain.data.batch import PRESENT
from mmpretrain.methods.base import Method
from tests.losses.oracle import unit


@dataclass(frozen=True)
class Further:
    """Hard negatives of one side. rows: [N, k, d]. there: bool [N, k]."""

    rows: Tensor
    there: Tensor


def further_of(method: Method, name: str, tensors: dict[str, Tensor]) -> Further:
    """One modality's, encoded one sample at a time; tensors: values [N, k, features] and present [N, k]."""
    rows = [method.model(**{name: {"values": own}}).embeds[name] for own in tensors["values"]]
    return Further(torch.stack(rows), tensors[PRESENT])


@dataclass(frozen=True)
class Found:
    """loss: of the whole batch. left_out: share of visible entries that the margin leaves out."""

    loss: Tensor
    left_out: float


def contrast_further(
    query: Tensor,
    key: Tensor,
    scale: Tensor | float,
    *,
    of_key: Further | None = None,
    of_query: Further | None = None,
    own: bool = False,
    margin: float | None = None,
    ids: Tensor | None = None,
    valid: Tensor | None = None,
    same_side: bool = False,
) -> Found:
    """One pair [N, d] in both directions. own: rows see no hard negatives but their sample's. valid: bool [N]."""
    size = len(query)
    itself = torch.eye(size, dtype=torch.bool)
    valid = torch.ones(size, dtype=torch.bool) if valid is None else valid
    copies = itself & False if ids is None else (ids[:, None] == ids) & ~itself
    losses, left_out, visible = [], 0, 0
    for anchors, keys, further in ((query, key, of_key), (key, query, of_query)):
        a, k = unit(anchors), unit(keys)
        cosines, seen = [a @ k.T], [valid & ~copies]
        if same_side:
            cosines.append(a @ a.T)
            seen.append(valid & ~copies & ~itself)
        if further is not None:
            count = further.there.shape[1]
            cosines.append(a @ unit(further.rows.flatten(0, 1)).T)
            pairs = itself if own else ~copies
            seen.append(pairs.repeat_interleave(count, dim=1) & further.there.flatten())
        cosine, see = torch.cat(cosines, dim=1)[valid], torch.cat(seen, dim=1)[valid]
        pair = torch.zeros_like(see)
        pair[:, :size] = itself[valid]
        mine = cosine[pair]
        out = see & ~pair & (cosine > (torch.inf if margin is None else mine[:, None] + margin))
        logits = scale * cosine
        losses.append(logits.masked_fill(~see | out, -torch.inf).logsumexp(dim=1) - logits[pair])
        left_out, visible = left_out + int(out.sum()), visible + int((see & ~pair).sum())
    return Found(torch.cat(losses).mean(), left_out / visible)
