"""The losses written out once more, from the papers' equations, with whole N x N matrices on one process.

Independent of mmpretrain.losses on purpose: the parity tests compare the two.
"""

from __future__ import annotations

import torch
from torch import Tensor


def unit(rows: Tensor) -> Tensor:
    """Rows divided by their norms."""
    return rows / rows.pow(2).sum(dim=1, keepdim=True).sqrt()


def weighted_log_softmax(logits: Tensor, weights: Tensor, hidden: Tensor) -> Tensor:
    """Sum over all i, j of weights_ij log softmax_j(logits_i.)_j, row by row, hidden columns taken out."""
    total = logits.new_zeros(())
    for row, weight, gone in zip(logits, weights, hidden, strict=True):
        kept = ~gone
        log_probability = row[kept] - row[kept].exp().sum().log()
        total = total + (weight[kept] * log_probability).sum()
    return total


def mixup_targets(lam: Tensor, partner: Tensor, assign_self_pairs: bool = False) -> Tensor:
    """P of section 2.2: P_ii = lam_i, P_i,partner(i) += 1 - lam_i (or = 1 - lam_i)."""
    size = len(lam)
    targets = torch.zeros(size, size, dtype=torch.float64)
    for i in range(size):
        j = int(partner[i])
        targets[i, i] = lam[i]
        targets[i, j] = (0 if assign_self_pairs else targets[i, j]) + 1 - lam[i]
    return targets


def hidden_copies(targets: Tensor, contents: list[set[int]], ids: list[int]) -> Tensor:
    """Entries whose key is another copy of something that the query row contains."""
    hidden = torch.zeros(len(ids), len(ids), dtype=torch.bool)
    for i, content in enumerate(contents):
        for j, key in enumerate(ids):
            hidden[i, j] = key in content and targets[i, j] == 0
    return hidden


def info_nce(query: Tensor, key: Tensor, scale: Tensor | float, targets: Tensor, ids: list[int]) -> Tensor:
    """Both directions of InfoNCE with target matrix P, copies of positives hidden."""
    size = len(ids)
    contents = [{ids[j] for j in range(size) if targets[i, j] > 0} for i in range(size)]
    hidden = hidden_copies(targets, contents, ids)
    logits = scale * unit(query) @ unit(key).T
    rows = weighted_log_softmax(logits, targets, hidden)
    columns = weighted_log_softmax(logits.T, targets.T, hidden.T)
    return -(rows + columns) / (2 * size)


def soft_loss(a: Tensor, b: Tensor, scale: float, ids: list[int], detach: bool = False) -> Tensor:
    """Section 2.3, other copies of a row's sample hidden."""
    size = len(ids)
    hidden = hidden_copies(torch.eye(size), [{sample} for sample in ids], ids)
    weights = (scale * unit(b) @ unit(b).T).exp() * ~hidden
    targets = weights / weights.sum(dim=1, keepdim=True)
    targets = targets.detach() if detach else targets
    logits = scale * unit(a) @ unit(b).T
    both = weighted_log_softmax(logits, targets, hidden) + weighted_log_softmax(logits.T, targets, hidden)
    return -both / (2 * size)


def nll(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy of [N, C] logits."""
    return -(logits.log_softmax(dim=1)[range(len(labels)), labels]).mean()
