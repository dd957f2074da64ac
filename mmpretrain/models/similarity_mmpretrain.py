"""The similarity that a method trains with, in a release: logits of all pairs of samples, what probabilities they mean,
and the loss within a batch. For modalities a and c with unit-length embeddings u, v and s = exp(logit_scale):

    softmax   logits = s u v^T           probabilities: of c's samples, for each of a's: softmax over a row
    sigmoid   logits = s u v^T + bias    probabilities: of each pair alone: sigmoid

The loss is that of CLIP or SigLIP, averaged over the pairs of modalities, of the samples of one call alone; those of
several processes are mmpretrain.losses.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import combinations

import torch
from torch import Tensor
from torch.nn import functional as F

from .contents_mmpretrain import can_look, tracing

SOFTMAX, SIGMOID = "softmax", "sigmoid"
# Where a scale and a bias without weights start: as in CLIP and SigLIP.
START = {SOFTMAX: (1 / 0.07, None), SIGMOID: (10.0, -10.0)}

IGNORED = -100  # of labels, as in torch's cross-entropy

PerPair = dict[str, dict[str, Tensor]]


def at_least_float32(values: Tensor) -> Tensor:
    """``values`` with half-precision types widened to float32; float64 stays."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def unit_rows(rows: Tensor, factor: Tensor | float = 1.0) -> Tensor:
    """[b, d] -> the same in float32 at least, of length ``factor`` (a scalar or [b, 1]).

    A row of norm 0 stays 0 and passes its gradient on; so does one whose gradient would be too large for its type
    (entries below 1e-37 in float32).
    """
    rows = at_least_float32(rows)
    rows = _squarable(rows) if rows.numel() else rows
    norms = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
    # Division by a tiny constant instead would multiply that row's gradient by its inverse.
    return rows * (factor / torch.where(norms > 0, norms, torch.ones_like(norms)))


def _squarable(rows: Tensor) -> Tensor:
    """[b, d] -> the same; rows whose squares would be 0 or infinite come nearer to 1 by an exact power of two."""
    exponent = round(math.log2(torch.finfo(rows.dtype).max))
    usual, shift = 2.0 ** (exponent // 3), 2.0 ** (exponent * 3 // 4)
    largest = rows.detach().abs().amax(dim=1, keepdim=True)
    one = torch.ones_like(largest)  # numbers beside it would be float32 in between, and overflow
    factor = torch.where(largest > usual, one / shift, torch.where(largest < 1 / usual, one * shift, one))
    return rows * torch.where(largest < 8 * torch.finfo(rows.dtype).tiny, one, factor)


def logits_per(
    embeds: Mapping[str, Tensor], scale: Tensor, bias: Tensor | None, rows: Sequence[str] | None = None
) -> PerPair:
    """Modality a -> modality c -> [b_a, b_c]. scale, bias: [1]. rows: the modalities that scale [len(rows)] is for,
    where the logits of c for a have another one than those of a for c; None: one is for all."""
    found: PerPair = {name: {} for name in embeds}
    # Autocast would take the product in half precision, where a scale of 100 leaves two digits.
    with torch.autocast(scale.device.type, enabled=False):
        units = {name: unit_rows(rows) for name, rows in embeds.items()}
        factor = at_least_float32(scale).exp()
        for first, second in combinations(embeds, 2):
            # Of a model that is spread over devices, embeddings lie on several.
            query, device = units[first], units[first].device
            own = factor if rows is None else factor[rows.index(first)]
            key = units[second].to(query)
            logits = own.to(device) * query @ key.T
            logits = logits if bias is None else logits + bias.to(device)
            found[first][second], found[second][first] = logits, logits.T
            if rows is not None:
                found[second][first] = factor[rows.index(second)].to(device) * key @ query.T
    return found


def probabilities(logits: Tensor, form: str) -> Tensor:
    """What logits [b_a, b_c] mean: rows that sum to 1 over c's samples, or every pair's own probability."""
    return logits.softmax(dim=1) if form == SOFTMAX else logits.sigmoid()


def pair_loss(logits: Tensor, back: Tensor, form: str) -> Tensor:
    """The loss of samples that belong together in order: logits [b, b], and back, those of the other direction."""
    own = torch.arange(len(logits), device=logits.device)
    if form == SOFTMAX:
        return (F.cross_entropy(logits, own) + F.cross_entropy(back, own)) / 2
    signs = 2 * torch.eye(len(logits), dtype=logits.dtype, device=logits.device) - 1
    return -F.logsigmoid(signs * logits).sum() / len(logits)


def batch_loss(logits: PerPair, present: Mapping[str, Tensor], form: str) -> Tensor:
    """The mean of :func:`pair_loss` over all pairs of modalities, each of the samples that have both.

    present: modality -> bool [b], for those that samples may lack. Raises ValueError if no sample has two modalities.
    """
    losses = []
    for first, second in combinations(logits, 2):
        found, back = logits[first][second], logits[second][first]
        masks = [present[name].bool() for name in (first, second) if name in present]
        if masks:
            both = torch.stack(masks).all(dim=0).to(found.device)
            found, back = found[both][:, both], back[both][:, both]
            if not len(found):
                continue
        losses.append(pair_loss(found, back, form))
    if not losses:
        raise ValueError("return_loss: no sample of this batch has two modalities")
    return torch.stack(losses).mean()


def classifier_loss(logits: Tensor, labels: Tensor, look: bool) -> Tensor:
    """The cross-entropy of logits [b, classes] for labels int [b], of which -100 does not count.

    look: whether to look at the labels, which makes a GPU wait. Raises ValueError for labels of another shape, type or
    range.
    """
    if labels.shape != logits.shape[:1] or labels.is_floating_point():
        raise ValueError(
            f"labels is {labels.dtype} of shape {list(labels.shape)}: one class number for each of the"
            f" {len(logits)} samples is needed, int64"
        )
    classes = logits.shape[1]
    if (look or labels.device.type == "cpu") and not tracing() and can_look(labels):
        outside = ((labels < 0) & (labels != IGNORED)) | (labels >= classes)
        if outside.any():
            found = int(labels[outside][0])
            raise ValueError(f"labels has {found}, and the classifier knows 0 to {classes - 1} (num_labels)")
    return F.cross_entropy(at_least_float32(logits), labels.long())
